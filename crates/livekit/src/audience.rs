//! Whom to hear: one participant of a room, and that one's microphone.
//!
//! It is the participant that was named, else the first that is a person (or a telephone). Once chosen it stays
//! the same by its identity, so that one who left and came back finds its conversation again, and one who comes
//! later hears the conversation but does not take part in it.

use livekit_protocol::participant_info::{Kind, State};
use livekit_protocol::{DisconnectReason, ParticipantInfo, TrackInfo, TrackSource, TrackType};

/// What changed for us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// The participant is there, for the first time or again.
    Joined {
        /// Its identity.
        identity: String,
    },
    /// It is not there any more; `meant`: it wanted to go.
    Left {
        /// It hung up, or was sent away; it did not just get lost.
        meant: bool,
    },
    /// Its microphone is to be heard.
    Subscribe(String),
    /// This track is not to be heard any more.
    Unsubscribe(String),
    /// It muted its microphone, or opened it again.
    Muted(bool),
}

#[derive(Debug, Default)]
pub(crate) struct Audience {
    /// Whom to hear and nobody else.
    named: Option<String>,
    /// Our own identity.
    ours: String,
    chosen: Option<String>,
    present: bool,
    microphone: Option<(String, bool)>,
}

impl Audience {
    pub fn new(named: Option<String>) -> Self {
        Self {
            named,
            ..Self::default()
        }
    }

    /// Who it is that is heard, once there is one.
    pub fn identity(&self) -> Option<&str> {
        self.chosen.as_deref()
    }

    /// The track that is heard.
    pub fn microphone(&self) -> Option<&str> {
        self.microphone.as_ref().map(|(sid, _)| sid.as_str())
    }

    pub fn is_present(&self) -> bool {
        self.present
    }

    /// We joined, for the first time or anew: these are all that are there.
    pub fn joined(&mut self, ours: &str, others: &[ParticipantInfo]) -> Vec<Change> {
        self.ours = ours.to_owned();
        // Subscriptions do not outlive a connection.
        self.microphone = None;
        let mut changes = Vec::new();
        let gone = self.chosen.as_ref().is_some_and(|chosen| {
            !others
                .iter()
                .any(|other| other.identity == *chosen && is_there(other))
        });
        if gone && std::mem::take(&mut self.present) {
            changes.push(Change::Left { meant: false });
        }
        changes.extend(self.update(others));
        changes
    }

    /// Some participants changed.
    pub fn update(&mut self, infos: &[ParticipantInfo]) -> Vec<Change> {
        let mut changes = Vec::new();
        for info in infos {
            if info.identity == self.ours || !self.is_meant(info) {
                continue;
            }
            if is_there(info) {
                if !std::mem::replace(&mut self.present, true) {
                    self.chosen = Some(info.identity.clone());
                    changes.push(Change::Joined {
                        identity: info.identity.clone(),
                    });
                }
                self.follow(info, &mut changes);
            } else if std::mem::take(&mut self.present) {
                self.microphone = None;
                changes.push(Change::Left {
                    meant: matches!(
                        info.disconnect_reason(),
                        DisconnectReason::ClientInitiated | DisconnectReason::ParticipantRemoved
                    ),
                });
            }
        }
        changes
    }

    fn is_meant(&self, info: &ParticipantInfo) -> bool {
        match (&self.chosen, &self.named) {
            (Some(chosen), _) => info.identity == *chosen,
            (None, Some(named)) => info.identity == *named,
            (None, None) => is_there(info) && is_person(info),
        }
    }

    fn follow(&mut self, info: &ParticipantInfo, changes: &mut Vec<Change>) {
        let known = self
            .microphone
            .as_ref()
            .and_then(|(sid, _)| info.tracks.iter().find(|track| track.sid == *sid));
        let track = known.or_else(|| info.tracks.iter().find(|track| is_microphone(track)));
        let old = self.microphone.take();
        let Some(track) = track else {
            changes.extend(old.map(|(sid, _)| Change::Unsubscribe(sid)));
            return;
        };
        self.microphone = Some((track.sid.clone(), track.muted));
        match old {
            Some((sid, muted)) if sid == track.sid => {
                if muted != track.muted {
                    changes.push(Change::Muted(track.muted));
                }
            }
            old => {
                changes.extend(old.map(|(sid, _)| Change::Unsubscribe(sid)));
                changes.push(Change::Subscribe(track.sid.clone()));
            }
        }
    }
}

fn is_there(info: &ParticipantInfo) -> bool {
    info.state() != State::Disconnected
}

fn is_person(info: &ParticipantInfo) -> bool {
    let hidden = info
        .permission
        .as_ref()
        .is_some_and(|permission| permission.hidden);
    matches!(info.kind(), Kind::Standard | Kind::Sip | Kind::Connector) && !hidden
}

fn is_microphone(track: &TrackInfo) -> bool {
    // Clients that are no browsers may name no source.
    track.r#type() == TrackType::Audio
        && matches!(
            track.source(),
            TrackSource::Microphone | TrackSource::Unknown
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn person(identity: &str, tracks: &[(&str, TrackType, TrackSource)]) -> ParticipantInfo {
        ParticipantInfo {
            identity: identity.into(),
            state: State::Active.into(),
            tracks: tracks
                .iter()
                .map(|(sid, kind, source)| TrackInfo {
                    sid: (*sid).into(),
                    r#type: (*kind).into(),
                    source: (*source).into(),
                    ..TrackInfo::default()
                })
                .collect(),
            ..ParticipantInfo::default()
        }
    }

    fn speaking(identity: &str) -> ParticipantInfo {
        let sid = format!("TR_{identity}");
        person(
            identity,
            &[(&sid, TrackType::Audio, TrackSource::Microphone)],
        )
    }

    fn gone(identity: &str) -> ParticipantInfo {
        ParticipantInfo {
            state: State::Disconnected.into(),
            ..person(identity, &[])
        }
    }

    fn joined(identity: &str) -> Change {
        Change::Joined {
            identity: identity.into(),
        }
    }

    fn subscribe(sid: &str) -> Change {
        Change::Subscribe(sid.into())
    }

    const LOST: Change = Change::Left { meant: false };

    #[test]
    fn who_hangs_up_is_told_from_who_is_lost() {
        let mut audience = Audience::new(None);
        audience.joined("us", &[speaking("ada")]);
        let hung_up = ParticipantInfo {
            disconnect_reason: DisconnectReason::ClientInitiated.into(),
            ..gone("ada")
        };
        assert_eq!(audience.update(&[hung_up]), [Change::Left { meant: true }]);
    }

    #[test]
    fn the_first_person_is_heard_and_nobody_else() {
        let mut audience = Audience::new(None);
        let agent = ParticipantInfo {
            kind: Kind::Agent.into(),
            ..speaking("other-agent")
        };
        let recorder = ParticipantInfo {
            kind: Kind::Egress.into(),
            ..speaking("recorder")
        };
        assert_eq!(audience.joined("us", &[agent, recorder]), []);
        assert_eq!(audience.update(&[speaking("us")]), [], "not ourselves");
        assert_eq!(
            audience.update(&[speaking("ada")]),
            [joined("ada"), subscribe("TR_ada")]
        );
        assert_eq!(audience.update(&[speaking("bob")]), []);
        assert_eq!(audience.update(&[gone("bob")]), []);
        assert_eq!(audience.update(&[gone("ada")]), [LOST]);
        assert_eq!(
            audience.update(&[speaking("bob")]),
            [],
            "the conversation is ada's"
        );
    }

    #[test]
    fn the_one_who_was_named_is_heard_whoever_came_before() {
        let mut audience = Audience::new(Some("bob".into()));
        assert_eq!(audience.joined("us", &[speaking("ada")]), []);
        assert_eq!(audience.update(&[person("bob", &[])]), [joined("bob")]);
        assert_eq!(audience.update(&[speaking("bob")]), [subscribe("TR_bob")]);
        assert_eq!(audience.identity(), Some("bob"));
    }

    #[test]
    fn a_microphone_is_told_from_a_screen_and_followed_through_mute_and_change() {
        let mut audience = Audience::new(None);
        let screen = ("TR_s", TrackType::Audio, TrackSource::ScreenShareAudio);
        let camera = ("TR_c", TrackType::Video, TrackSource::Camera);
        assert_eq!(
            audience.joined("us", &[person("ada", &[screen, camera])]),
            [joined("ada")]
        );
        let first = ("TR_1", TrackType::Audio, TrackSource::Microphone);
        let mut info = person("ada", &[screen, first]);
        assert_eq!(audience.update(&[info.clone()]), [subscribe("TR_1")]);
        info.tracks[1].muted = true;
        assert_eq!(audience.update(&[info.clone()]), [Change::Muted(true)]);
        assert_eq!(audience.update(&[info.clone()]), []);
        info.tracks[1].sid = "TR_2".into();
        assert_eq!(
            audience.update(&[info.clone()]),
            [Change::Unsubscribe("TR_1".into()), subscribe("TR_2")]
        );
        info.tracks.clear();
        assert_eq!(
            audience.update(&[info]),
            [Change::Unsubscribe("TR_2".into())]
        );
    }

    #[test]
    fn one_who_comes_back_is_joined_again_and_subscribed_anew() {
        let mut audience = Audience::new(None);
        audience.joined("us", &[speaking("ada")]);
        audience.update(&[gone("ada")]);
        assert_eq!(
            audience.update(&[speaking("ada")]),
            [joined("ada"), subscribe("TR_ada")]
        );
        // We come back ourselves: the subscription is a new one, the person is the same.
        assert_eq!(
            audience.joined("us", &[speaking("bob"), speaking("ada")]),
            [subscribe("TR_ada")]
        );
        // We come back and it is not there, then it is.
        assert_eq!(audience.joined("us", &[speaking("bob")]), [LOST]);
        assert_eq!(
            audience.update(&[speaking("ada")]),
            [joined("ada"), subscribe("TR_ada")]
        );
    }
}
