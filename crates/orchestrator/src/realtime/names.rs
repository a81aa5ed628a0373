//! What the core's states, reasons and errors are called in events.

use duologue_session::{EndReason, ErrorCode, Evidence, State};

pub(crate) fn state(state: State) -> &'static str {
    match state {
        State::WaitingForInput => "waiting_for_input",
        State::Listening => "listening",
        State::Thinking => "thinking",
        State::Speaking => "speaking",
        State::BargedIn => "barged_in",
        State::Ended => "ended",
    }
}

pub(crate) fn evidence(evidence: Evidence) -> &'static str {
    match evidence {
        Evidence::Duration => "duration",
        Evidence::TooShort => "too_short",
        Evidence::Words => "words",
        Evidence::Command => "command",
        Evidence::Backchannel => "backchannel",
        Evidence::Echo => "echo",
        Evidence::OwnSpeech => "own_speech",
        Evidence::NoWords => "no_words",
        Evidence::Deadline => "deadline",
        Evidence::Client => "client",
    }
}

pub(crate) fn end_reason(reason: EndReason) -> &'static str {
    match reason {
        EndReason::ClientClosed => "client_closed",
        EndReason::TransportLost => "transport_lost",
        EndReason::IdleTimeout => "idle_timeout",
        EndReason::MaxDuration => "max_duration",
        EndReason::MaxTurns => "max_turns",
        EndReason::Shutdown => "shutdown",
        EndReason::Overrun => "overrun",
    }
}

pub(super) fn error_code(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::InputEmpty => "input_audio_buffer_commit_empty",
        ErrorCode::ReplyActive => "conversation_already_has_active_response",
        ErrorCode::NoReplyActive => "response_cancel_not_active",
        ErrorCode::ItemNotFound => "item_not_found",
        ErrorCode::ItemExists => "item_exists",
        ErrorCode::BadTruncation => "invalid_value",
        ErrorCode::TranscriptionFailed => "transcription_failed",
        ErrorCode::ModelFailed => "model_failed",
        ErrorCode::VoiceFailed => "voice_failed",
        ErrorCode::BadConfig => "invalid_value",
        ErrorCode::SessionEnded => "session_ended",
        ErrorCode::UserSpeaking => "user_speaking",
        ErrorCode::OutputStalled => "output_stalled",
    }
}
