//! Clients that go away, sessions nobody uses, health, reflection and the end of a worker.

use std::time::Duration;

use crate::support::*;
use duologue_rpc::ControlAction;
use duologue_worker::{Timeouts, WorkerConfig};
use tonic::Code;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

const SERVICE: &str = "duologue.tts.v1.TtsWorker";

/// One engine thread that a stuck utterance would keep for an hour.
fn one_engine() -> WorkerConfig {
    WorkerConfig {
        engine_threads: 1,
        timeouts: Timeouts {
            engine: Duration::from_secs(3_600),
            drain: Duration::from_secs(1),
            ..Timeouts::default()
        },
        ..config()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_drops_its_stream_frees_the_engine() {
    let (worker, voices) = start_with(one_engine()).await;
    let client = connect(&worker);
    open_session(&client, "stuck", "stuck").await.unwrap();
    open_session(&client, "fine", "tone").await.unwrap();
    let stuck = Utterance::begin(&client, "stuck", "u", "Hello.").await;
    eventually("it computes", || async { voices.begun() == 1 }).await;
    drop(stuck);
    assert_whole(&say(&client, "fine", "Hello.").await.unwrap(), "Hello.");
    // The session lives on.
    control(&client, "stuck", ControlAction::Stop)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_utterance_may_follow_a_cancelled_one_at_once() {
    let worker = start(config()).await;
    let (client, _server) = connect_tcp(&worker).await;
    open_session(&client, "s", "").await.unwrap();
    for _ in 0..20 {
        let mut cancelled = Utterance::begin(&client, "s", "u", "Never mind.").await;
        cancelled.next_frame().await;
        drop(cancelled);
        assert_whole(&say(&client, "s", "Hi.").await.unwrap(), "Hi.");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_drops_its_connection_frees_the_engine() {
    let (worker, voices) = start_with(one_engine()).await;
    let client = connect(&worker);
    open_session(&client, "fine", "tone").await.unwrap();
    let (tcp, _server) = connect_tcp(&worker).await;
    open_session(&tcp, "stuck", "stuck").await.unwrap();
    let stuck = Utterance::begin(&tcp, "stuck", "u", "Hello.").await;
    eventually("it computes", || async { voices.begun() == 1 }).await;
    drop((stuck, tcp));
    assert_whole(&say(&client, "fine", "Hello.").await.unwrap(), "Hello.");
}

#[tokio::test(flavor = "multi_thread")]
async fn ending_a_session_in_the_middle_of_a_chunk_frees_its_slot_before_it_answers() {
    let (worker, voices) = start_with(WorkerConfig {
        max_sessions: 1,
        ..one_engine()
    })
    .await;
    let client = connect(&worker);
    open_session(&client, "stuck", "stuck").await.unwrap();
    let mut stuck = Utterance::begin(&client, "stuck", "u", "Hello.").await;
    eventually("it computes", || async { voices.begun() == 1 }).await;
    end_session(&client, "stuck").await.unwrap();
    open_session(&client, "next", "tone").await.unwrap();
    assert!(
        stuck.rest().await.unwrap().is_empty(),
        "it ended as by STOP"
    );
}

#[tokio::test(start_paused = true)]
async fn a_session_that_says_nothing_is_ended_and_one_that_speaks_is_not() {
    let worker = start(WorkerConfig {
        timeouts: Timeouts {
            idle_session: Duration::from_secs(300),
            ..Timeouts::default()
        },
        ..config()
    })
    .await;
    let client = connect(&worker);
    open_session(&client, "idle", "").await.unwrap();
    open_session(&client, "busy", "").await.unwrap();
    let minute = Duration::from_secs(60);
    for _ in 0..4 {
        assert_whole(&say(&client, "busy", "Hello.").await.unwrap(), "Hello.");
        tokio::time::sleep(minute).await;
    }
    assert_eq!(
        free_sessions(&client).await,
        14,
        "five minutes are not over"
    );
    assert_whole(&say(&client, "busy", "Hello.").await.unwrap(), "Hello.");
    tokio::time::sleep(2 * minute).await;
    assert_eq!(free_sessions(&client).await, 15);
    let gone = control(&client, "idle", ControlAction::Stop)
        .await
        .unwrap_err();
    assert_eq!(gone.code(), Code::FailedPrecondition);
    assert!(
        gone.message().contains("said nothing for 300 s"),
        "{}",
        gone.message()
    );
    assert_whole(&say(&client, "busy", "Hello.").await.unwrap(), "Hello.");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_is_given_up_and_its_session_goes_on() {
    let worker = start(config()).await;
    let client = connect(&worker);
    open_session_with_lead(&client, "s", "", 60_000)
        .await
        .unwrap();
    // More than the connection takes ahead of the reader: 90 s of sound are 9 MB.
    let text = "ten chars ".repeat(150);
    let mut unread = Utterance::begin(&client, "s", "u", &text).await;
    unread.finish();
    tokio::time::sleep(Duration::from_secs(10)).await;
    let refused = say(&client, "s", "Hello.").await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "it is waited for");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_whole(&say(&client, "s", "Hello.").await.unwrap(), "Hello.");
    let ended = unread.rest().await.unwrap_err();
    assert_eq!(ended.code(), Code::DeadlineExceeded);
    assert!(ended.message().contains("read no frame"), "{ended}");
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_answered_for_the_worker_and_for_its_service() {
    let worker = start(config()).await;
    let mut health = HealthClient::new(worker.channel());
    for service in ["", SERVICE] {
        let request = HealthCheckRequest {
            service: service.to_owned(),
        };
        let answer = health.check(request).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_tells_the_services_and_describes_the_abi() {
    let worker = start(config()).await;
    let server = serve(&worker).await;
    let channel = Endpoint::from_shared(server.url)
        .unwrap()
        .connect()
        .await
        .unwrap();
    let mut client = ServerReflectionClient::new(channel);
    let requests = [
        MessageRequest::ListServices(String::new()),
        MessageRequest::FileContainingSymbol(SERVICE.to_owned()),
    ];
    let requests = requests.map(|message| ServerReflectionRequest {
        host: String::new(),
        message_request: Some(message),
    });
    let mut answers = client
        .server_reflection_info(tokio_stream::iter(requests))
        .await
        .unwrap()
        .into_inner();
    let mut next = async || {
        answers
            .message()
            .await
            .unwrap()
            .unwrap()
            .message_response
            .unwrap()
    };
    let MessageResponse::ListServicesResponse(services) = next().await else {
        panic!("no list of services");
    };
    let names: Vec<_> = services
        .service
        .into_iter()
        .map(|service| service.name)
        .collect();
    assert!(names.iter().any(|name| name == SERVICE), "{names:?}");
    assert!(
        names.iter().any(|name| name == "grpc.health.v1.Health"),
        "{names:?}"
    );
    let MessageResponse::FileDescriptorResponse(files) = next().await else {
        panic!("no description of the service");
    };
    let described = files.file_descriptor_proto.concat();
    assert!(
        described
            .windows(14)
            .any(|bytes| bytes == b"ControlRequest")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_shuts_down_finishes_what_it_says_and_takes_no_more() {
    let worker = start(WorkerConfig {
        timeouts: Timeouts {
            drain: Duration::from_secs(3_600),
            ..Timeouts::default()
        },
        ..config()
    })
    .await;
    let (client, server) = connect_tcp(&worker).await;
    let inside = connect(&worker);
    open_session_with_lead(&client, "s", "", 100).await.unwrap();
    open_session(&inside, "t", "").await.unwrap();
    let mut utterance = Utterance::begin(&client, "s", "u", "The last words.").await;
    utterance.finish();
    let mut frames = vec![utterance.next_frame().await];
    server.shutdown.cancel();
    let health = HealthClient::new(worker.channel());
    eventually("the worker is not serving", || {
        let mut health = health.clone();
        async move {
            let request = HealthCheckRequest {
                service: SERVICE.to_owned(),
            };
            let answer = health.check(request).await.unwrap().into_inner();
            answer.status() == ServingStatus::NotServing
        }
    })
    .await;
    let refused = open_session(&inside, "new", "").await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    frames.extend(utterance.rest().await.unwrap());
    assert_whole(&frames, "The last words.");
    tokio::time::timeout(PATIENCE, server.task)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_finish_in_time_is_ended_when_the_worker_shuts_down() {
    let (worker, voices) = start_with(one_engine()).await;
    let (client, server) = connect_tcp(&worker).await;
    open_session(&client, "stuck", "stuck").await.unwrap();
    let mut stuck = Utterance::begin(&client, "stuck", "u", "Hello.").await;
    eventually("it computes", || async { voices.begun() == 1 }).await;
    server.shutdown.cancel();
    let ended = stuck.rest().await.unwrap_err();
    assert_eq!(ended.code(), Code::Unavailable, "{ended}");
    tokio::time::timeout(PATIENCE, server.task)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
}
