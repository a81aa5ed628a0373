//! The commented example says what the defaults are.

use duologue_worker::WorkerConfig;

#[test]
fn the_example_file_spells_out_the_defaults() {
    let example = include_str!("../../../../configs/worker.yaml");
    let config: WorkerConfig = serde_saphyr::from_str(example).unwrap();
    assert_eq!(config, WorkerConfig::default());
}

#[test]
fn a_file_may_leave_options_out_and_an_unknown_one_is_refused() {
    let config: WorkerConfig = serde_saphyr::from_str("max_sessions: 3").unwrap();
    assert_eq!(config.max_sessions, 3);
    assert_eq!(config.lead_ms, WorkerConfig::default().lead_ms);
    let error = serde_saphyr::from_str::<WorkerConfig>("max_session: 3").unwrap_err();
    assert!(error.to_string().contains("max_session"), "{error}");
}
