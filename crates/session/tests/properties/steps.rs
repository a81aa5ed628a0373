//! What may happen: anything at all, at any time, under any settings.

use crate::support::ms;
use duologue_session::{
    Announce, AtOnset, Config, ConfigPatch, InterruptionConfig, Limits, Modality, ReplyPatch,
    Speculation, Timing, TurnDetection,
};
use proptest::prelude::*;
use std::time::Duration;

/// An event whose names and positions are chosen when it happens, around those that are current.
#[derive(Clone, Debug)]
pub enum Step {
    /// The world does what it owes, after so many ms.
    World(u64),
    Wait(u64),
    /// Longer than any idle timeout.
    WaitLong,
    WaitForDeadline,
    SpeechStarted(u64),
    SpeechResumed(u64),
    Silence(u64),
    SpeechStopped(u64),
    EchoHeard,
    EndOfTurn(i8, u8),
    Partial(i8, u8),
    Transcript(i8, u8),
    TranscriptFailed(i8),
    Text(i8, u8),
    ToolCall(i8),
    ReplyEnded(i8, u8),
    ReplyFailed(i8),
    Audio(i8, u64, bool),
    AudioCut(i8, u64),
    AudioEnded(i8),
    VoiceFailed(i8),
    Sent(i8, u64),
    SentAll(i8),
    Played(i8, u64),
    Control(u8),
    Commit(u64),
    Clear,
    CreateItem(u8, u8),
    DeleteItem(u8),
    Retrieve(u8),
    Truncate(u8, u64),
    CreateReply(u8),
    Cancel(i8),
    Configure(u8),
    Say(bool),
    PlayerHolds(bool),
    Lost,
    Back,
    Close,
}

pub fn step() -> impl Strategy<Value = Step> {
    // Mostly the current generation, sometimes an old or a future one.
    let id = || prop_oneof![6 => Just(0_i8), 1 => Just(-1), 1 => Just(1)];
    prop_oneof![
        90 => (0_u64..400).prop_map(Step::World),
        8 => (0_u64..3_000).prop_map(Step::Wait),
        1 => Just(Step::WaitLong),
        4 => Just(Step::WaitForDeadline),
        6 => (0_u64..800).prop_map(Step::SpeechStarted),
        3 => (0_u64..800).prop_map(Step::SpeechResumed),
        6 => (0_u64..800).prop_map(Step::Silence),
        3 => (0_u64..800).prop_map(Step::SpeechStopped),
        1 => Just(Step::EchoHeard),
        3 => (id(), 0_u8..=100).prop_map(|(id, p)| Step::EndOfTurn(id, p)),
        3 => (id(), any::<u8>()).prop_map(|(id, n)| Step::Partial(id, n)),
        6 => (id(), any::<u8>()).prop_map(|(id, n)| Step::Transcript(id, n)),
        1 => id().prop_map(Step::TranscriptFailed),
        6 => (id(), any::<u8>()).prop_map(|(id, n)| Step::Text(id, n)),
        1 => id().prop_map(Step::ToolCall),
        4 => (id(), 0_u8..4).prop_map(|(id, how)| Step::ReplyEnded(id, how)),
        1 => id().prop_map(Step::ReplyFailed),
        6 => (id(), 0_u64..200_000, any::<bool>()).prop_map(|(id, n, marks)| Step::Audio(id, n, marks)),
        2 => (id(), 0_u64..60_000).prop_map(|(id, n)| Step::AudioCut(id, n)),
        3 => id().prop_map(Step::AudioEnded),
        1 => id().prop_map(Step::VoiceFailed),
        6 => (id(), 0_u64..100_000).prop_map(|(id, n)| Step::Sent(id, n)),
        3 => id().prop_map(Step::SentAll),
        3 => (id(), 0_u64..200_000).prop_map(|(id, n)| Step::Played(id, n)),
        3 => (0_u8..3).prop_map(Step::Control),
        1 => (0_u64..3_000).prop_map(Step::Commit),
        1 => Just(Step::Clear),
        1 => any::<(u8, u8)>().prop_map(|(n, kind)| Step::CreateItem(n, kind)),
        1 => any::<u8>().prop_map(Step::DeleteItem),
        1 => any::<u8>().prop_map(Step::Retrieve),
        1 => (any::<u8>(), 0_u64..5_000).prop_map(|(n, at)| Step::Truncate(n, at)),
        3 => any::<u8>().prop_map(Step::CreateReply),
        1 => id().prop_map(Step::Cancel),
        3 => any::<u8>().prop_map(Step::Configure),
        1 => any::<bool>().prop_map(Step::Say),
        1 => any::<bool>().prop_map(Step::PlayerHolds),
        1 => Just(Step::Lost),
        2 => Just(Step::Back),
    ]
}

fn detection(n: u8) -> TurnDetection {
    let vad = |create_response, interrupt_response, idle| TurnDetection::ServerVad {
        silence: ms(u64::from(n) * 4),
        threshold: 0.5,
        prefix: ms(300),
        create_response,
        interrupt_response,
        idle_timeout: idle,
    };
    match n % 6 {
        0 | 1 => TurnDetection::default(),
        2 => vad(true, true, None),
        3 => vad(true, false, Some(Duration::from_secs(5))),
        4 => vad(false, true, None),
        _ => TurnDetection::Manual,
    }
}

/// A change of any of the settings.
pub fn change(n: u8) -> ConfigPatch {
    let flag = n & 16 != 0;
    match n % 6 {
        0 | 1 => ConfigPatch {
            turn_detection: Some(detection(n / 6)),
            ..ConfigPatch::default()
        },
        2 => ConfigPatch {
            interruption: Some(InterruptionConfig {
                at_onset: if flag { AtOnset::Duck } else { AtOnset::Pause },
                min_words: usize::from(n / 32),
                max_rewind: ms(u64::from(n) * 8),
                ..InterruptionConfig::default()
            }),
            ..ConfigPatch::default()
        },
        3 => ConfigPatch {
            timing: Some(Timing {
                partials: flag.then_some(ms(300)),
                min_silence: ms(u64::from(n) * 2),
                max_turn: Duration::from_secs(5),
                ..Timing::default()
            }),
            speculation: Some(if flag {
                Speculation::On
            } else {
                Speculation::Off
            }),
            ..ConfigPatch::default()
        },
        4 => ConfigPatch {
            limits: Some(Limits {
                idle_timeout: Some(Duration::from_secs(if flag { 40 } else { 300 })),
                max_duration: (n & 32 != 0).then_some(Duration::from_secs(120)),
                max_turns: (n & 64 != 0).then_some(2),
                goodbye: (n & 128 != 0).then(|| "So long.".to_owned()),
                history_tokens: usize::from(n),
                max_items: 20,
                ..Limits::default()
            }),
            ..ConfigPatch::default()
        },
        _ => ConfigPatch {
            reply: ReplyPatch {
                modality: flag.then_some(Modality::Text),
                instructions: Some("Other instructions.".to_owned()),
                ..ReplyPatch::default()
            },
            ..ConfigPatch::default()
        },
    }
}

pub fn config() -> impl Strategy<Value = Config> {
    (
        any::<u8>(),
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        proptest::option::of(1_u32..4),
        any::<bool>(),
    )
        .prop_map(
            |(detect, duck, at_onset, partials, max_turns, goodbye)| Config {
                turn_detection: detection(detect),
                interruption: InterruptionConfig {
                    at_onset: if duck { AtOnset::Duck } else { AtOnset::Pause },
                    announce: if at_onset {
                        Announce::AtOnset
                    } else {
                        Announce::WhenSure
                    },
                    ..InterruptionConfig::default()
                },
                timing: Timing {
                    partials: partials.then_some(ms(500)),
                    ..Timing::default()
                },
                limits: Limits {
                    max_turns,
                    goodbye: goodbye.then(|| "Bye now.".to_owned()),
                    max_items: 20,
                    ..Limits::default()
                },
                ..Config::default()
            },
        )
}

/// A step's kind, to see what was done in which state.
pub fn kind(step: &Step) -> &'static str {
    match step {
        Step::Control(n) => ["pause", "resume", "stop"][usize::from(*n) % 3],
        Step::Lost => "lost",
        Step::Back => "back",
        Step::Close => "close",
        Step::Commit(_) => "commit",
        Step::Clear => "clear",
        Step::Configure(_) => "configure",
        Step::CreateReply(_) => "create reply",
        Step::Cancel(_) => "cancel",
        Step::Say(_) => "say",
        Step::ToolCall(_) => "tool call",
        Step::CreateItem(..) => "create item",
        Step::Truncate(..) => "truncate",
        Step::WaitLong => "wait long",
        Step::SpeechStarted(_) => "speech",
        _ => "other",
    }
}
