//! `duologue replay`: what a recorded session's core does today, told the same again.

mod compare;
mod policy;
mod recorded;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use duologue_session::{
    Beginning, Difference, Happening, Overridden, Tally, rehearse, replay, rerecord,
};

use recorded::Recorded;

/// Play a recorded session again and check that the same things are done at the same times
///
/// DIR is what `duologue serve --record` wrote: one session's folder, or a folder of such folders. The exit code
/// is 0 when every action is as recorded.
#[derive(Args)]
pub struct ReplayCommand {
    /// Recording, or folder of recordings
    #[arg(value_name = "DIR")]
    folder: PathBuf,

    /// Play it against other settings instead, and show what they would have changed: KEY=VALUE, such as
    /// `timing.min_silence=400`, or a YAML file of such keys; times in ms. Can be given several times
    #[arg(long = "policy", value_name = "FILE|KEY=VALUE")]
    policies: Vec<String>,

    /// Write what is done today into the recording, where a difference is wanted
    #[arg(long, conflicts_with = "policies")]
    accept: bool,
}

impl ReplayCommand {
    pub fn run(self) -> anyhow::Result<()> {
        let folders = Recorded::folders(&self.folder)?;
        let mut different = 0;
        for folder in &folders {
            let recorded = Recorded::read(folder, self.accept)?;
            if !self.policies.is_empty() {
                self.rehearse(&recorded)?;
            } else if !self.replay(&recorded)? {
                different += 1;
            }
        }
        match different {
            0 => Ok(()),
            1 if folders.len() == 1 => bail!("the session is not as recorded"),
            n => bail!("{n} of {} sessions are not as recorded", folders.len()),
        }
    }

    /// What other settings would have changed.
    fn rehearse(&self, recorded: &Recorded) -> anyhow::Result<()> {
        let about = &recorded.about;
        let lead = Duration::from_millis(about.lead_ms);
        let (config, overridden) = policy::apply(&about.beginning.config, &self.policies)?;
        let play = |beginning: &Beginning, overridden| {
            let rehearsed = rehearse(beginning, &recorded.entries, overridden, lead, None);
            (Tally::of(&rehearsed.entries), rehearsed.made_up)
        };
        let (same, _) = play(&about.beginning, Overridden::default());
        let changed = Beginning {
            config,
            ..about.beginning.clone()
        };
        let (changed, made_up) = play(&changed, overridden);
        println!("{}: with {}\n", about.session, self.policies.join(", "));
        let was = Tally::of(&recorded.entries);
        let columns = [
            ("recorded", &was),
            ("rehearsed", &same),
            ("changed", &changed),
        ];
        println!("{}", compare::table(&columns));
        let differences = compare::differences(&same.moments, &changed.moments);
        if differences.is_empty() {
            println!("Nobody would have noticed.");
        } else {
            println!("From rehearsed (-) to changed (+):\n{differences}");
        }
        if made_up > 0 {
            println!(
                "{made_up} answers of the recognizer, the model or the voice are not in the recording and were made up."
            );
        }
        Ok(())
    }

    /// Whether it is as recorded.
    fn replay(&self, recorded: &Recorded) -> anyhow::Result<bool> {
        let about = &recorded.about;
        let name = &about.session;
        match replay(&about.beginning, &recorded.entries, about.complete) {
            Ok(same) => {
                println!(
                    "{name}: as recorded: {} events, {} actions, {} turns, {} interruptions{}",
                    same.events,
                    same.actions,
                    same.counters.turns,
                    same.counters.interruptions,
                    match (&about.stopped_because, about.complete) {
                        (_, true) => String::new(),
                        (Some(why), false) => format!(" (the recording is incomplete: {why})"),
                        (None, false) => " (the recording is incomplete)".to_owned(),
                    }
                );
                Ok(true)
            }
            Err(difference) => {
                println!("{name}: {}", describe(&difference)?);
                if self.accept {
                    recorded.write_entries(&rerecord(&about.beginning, &recorded.entries))?;
                    println!("{name}: the recording now holds what is done today");
                }
                Ok(self.accept)
            }
        }
    }
}

fn describe(difference: &Difference) -> anyhow::Result<String> {
    let json = |what: Option<Happening>| {
        what.map_or_else(
            || Ok("nothing".to_owned()),
            |what| serde_json::to_string(&what).context("an action cannot be written"),
        )
    };
    Ok(format!(
        "differs at line {}, {:.3} s into the session\n  after:    {}\n  recorded: {}\n  now:      {}",
        difference.entry + 1,
        difference.at.as_secs_f64(),
        json(difference.after.clone().map(Happening::Event))?,
        json(difference.recorded.clone().map(Happening::Action))?,
        json(difference.now.clone().map(Happening::Action))?,
    ))
}
