//! Which worker speaks: a pure function of what is wanted, what is known of the workers, and a policy.
//!
//! [`route`] decides, [`explain`] decides the same and says why of every worker. Filters come first: a worker that is
//! avoided, drains, lacks what the policy requires, or has no such voice in the language is out. Of those with room,
//! in this order:
//!
//! 1. the voice is resident, where the policy prefers that;
//! 2. more of the policy's tags;
//! 3. less load, this session included and utterances that wait counted like sessions: first by what sessions take of
//!    the worker's measured speed beyond half of it, then by the share of its slots;
//! 4. the shorter median time to first sound, in steps of 25 ms;
//! 5. the worker that spoke for this session last;
//! 6. the smaller hash of session and worker, so that equals share new sessions; then the name.
//!
//! A voice that is resident nowhere with room is to be loaded where it would be best, and meanwhile another voice
//! stands in, if the policy allows one that speaks the language: in conversations only, since a text of its own can
//! wait for its voice.

mod decide;
mod explain;
mod policy;
mod price;

pub use decide::{Because, Decision, Load, Route, route};
pub use explain::{Candidate, Explanation, Preferences, explain};
pub use policy::{Policies, Policy, PolicyError, QueuePolicy};
pub use price::room;

#[cfg(test)]
mod tests;
