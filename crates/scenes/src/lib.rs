//! Scripted conversations: who says what when, over which noise, through which echo, with which client; and what
//! must come of it, by when, and what must not.
//!
//! A scene is a file that a person can read ([`Scene`]); a matrix in it makes many of one. The [`Director`] says
//! when each step is due, from what was heard so far; the [`Microphone`] mixes what the client sends; the
//! [`Player`] is the client's loudspeaker; the [`Performer`] is the client that joins them; the [`Trace`] is what came of it, by the client's clock. [`check`] holds
//! it against what the scene asks for, [`measure`] makes figures of it, and [`picture`] draws it.
//!
//! Nothing here keeps time or talks to a server: that is done where scenes are played, and in tests virtual time
//! does as well. Only [`Library`] opens files, by their path.

pub mod check;
mod director;
mod echo;
mod expand;
mod library;
pub mod measure;
mod microphone;
mod moment;
mod performer;
pub mod picture;
mod player;
mod scene;
mod trace;

pub use director::{Cue, Director};
pub use echo::EchoPath;
pub use expand::{SceneError, load_dir, parse};
pub use library::{Clip, Library, LibraryError};
pub use microphone::{Microphone, Mixed};
pub use moment::{Anchor, Moment, MomentError};
pub use performer::{Performer, Sending};
pub use player::{Played, Player};
pub use scene::{
    Absence, Act, Background, Client, Control, Echo, Expectation, Kind, Reply, Scene, Spoken, Step,
};
pub use trace::{Block, Happening, ReplyTrace, StepTrace, Trace, Word};

/// Samples a second that a client sends and plays.
pub const RATE: u32 = 24_000;
/// Samples in what is sent and played at a time.
pub const BLOCK: usize = RATE as usize / 50;
/// Seconds in a block.
pub const BLOCK_SECONDS: f64 = 0.02;
