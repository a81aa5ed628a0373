//! Access control: who may use the server, and how much of it each may have.
//!
//! Everything here is a function of what it is given: there is no I/O, no clock and no randomness. Who asks the
//! [`Authenticator`] reads headers and files, tells the time, and does what is answered.
//!
//! Three questions are asked of a request, each by itself:
//!
//! 1. [`Pages`]: if a browser's page sent it, may that page talk to this server at all?
//! 2. [`Authenticator`]: does it come with a key, or with a [client secret](ClientSecret) that was made with one?
//! 3. [`Usage`]: has the key room left for it, or the address where there is no key?

mod addresses;
mod authenticator;
mod client_secret;
mod credential;
mod keys;
mod limits;
mod pages;

pub use addresses::Addresses;
pub use authenticator::{Admitted, Authenticator, Refused, Scope};
pub use client_secret::{CLIENT_SECRET, ClientSecret, SecretRefused, Signer, SignerError};
pub use credential::{KEY_PROTOCOL, bearer, in_subprotocols};
pub use keys::{Key, KeysError, read_keys};
pub use limits::{Limited, Limits, Usage};
pub use pages::{Origin, OriginError, PageRefused, Pages, Visit};
