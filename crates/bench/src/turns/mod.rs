//! Turn-taking by scenes: real speech and real noise, played in real time over a real WebSocket into a running
//! server; what must happen by when, and what must not.

pub mod endpoint;
mod pictures;
mod play;
mod table;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use duologue_scenes::check::{Verdict, check};
use duologue_scenes::measure::{Figures, figures};
use duologue_scenes::{Act, Library, Scene, Spoken, Trace};
use futures_util::StreamExt;
use indicatif::{ProgressBar, ProgressStyle};

use super::report::Report;
use super::server::Server;
use endpoint::Endpoint;

/// A client whose clock was this late, seconds, was on a machine that was too slow; its scene is played again.
const TOO_LATE: f64 = 0.15;
/// Scenes that are played again at most; where there are more, the machine is not fit for the measurement at all.
const MOST_AGAIN: usize = 20;
/// No scene takes longer.
const LONGEST: Duration = Duration::from_secs(150);

/// Turn-taking: plays scripted conversations with real speech and noise and says what came of them
///
/// Each scene is a file in `scenes/` (docs/scenes.md says how to write one). They are played in real time, several
/// at once, over WebSockets into a server that is started for it; what the assistant says is given by a scripted
/// language model, which this bench serves over HTTP, so that a model's wording and load are not measured.
///
/// Examples:
///   duologue bench turns                                  # all of them, about ten minutes
///   duologue bench turns --only 'interrupt-middle/*'
///   duologue bench turns --report report                  # pictures: report/index.html
///   duologue bench turns --compare                        # what the gate and state-aware thresholds are worth
///   duologue bench turns -- --asr whisper-base            # other options for the server
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct TurnsBench {
    /// Folder of the scenes
    #[arg(long, default_value = "scenes", value_name = "DIR")]
    scenes: PathBuf,

    /// Folder of the clips that scenes name
    #[arg(long, default_value = "tests/data", value_name = "DIR")]
    data: PathBuf,

    /// Another folder of clips; adds the scenes in `corpus/` of the scenes' folder, as far as their clips are there
    #[arg(long, value_name = "DIR")]
    corpus: Option<PathBuf>,

    /// Only scenes whose names match; `*` stands for anything. May be given several times
    #[arg(long, value_name = "GLOB")]
    only: Vec<String>,

    /// Scenes played at once; 0 takes twice the machine's cores
    #[arg(long, default_value_t = 0, value_name = "N")]
    parallel: usize,

    /// Play the harmless kinds again with the noise gate and state-aware thresholds off, and print both
    #[arg(long)]
    compare: bool,

    /// Write a page with a picture of every scene and of every measure to this folder
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,

    /// List the scenes and stop
    #[arg(long)]
    list: bool,

    /// Fail when a scene fails
    #[arg(long)]
    strict: bool,

    /// More options for the server that is started, such as `--asr whisper-base`
    #[arg(last = true, value_name = "OPTION")]
    serve: Vec<String>,
}

/// A scene that was played.
pub struct Outcome {
    pub scene: Scene,
    pub trace: Trace,
    pub verdicts: Vec<Verdict>,
    pub figures: Figures,
}

impl Outcome {
    fn of(scene: Scene, trace: Trace) -> Self {
        Self {
            verdicts: check(&scene, &trace),
            figures: figures(&scene, &trace),
            scene,
            trace,
        }
    }

    /// Whether all that was asked for came to pass.
    pub fn passed(&self) -> bool {
        self.verdicts.iter().all(|verdict| verdict.passed)
    }

    /// What did not, for people.
    pub fn wrong(&self) -> String {
        let wrong: Vec<String> = self
            .verdicts
            .iter()
            .filter(|verdict| !verdict.passed)
            .map(|verdict| format!("{}: {}", verdict.what, verdict.found))
            .collect();
        wrong.join("; ")
    }
}

/// Options of `serve` that take the noise gate and the state-aware thresholds away.
const WITHOUT: [(&str, &str); 2] = [("--noise-gate", "off"), ("--speaking-threshold-scale", "1")];

impl TurnsBench {
    pub async fn run(self) -> anyhow::Result<Report> {
        let mut roots = vec![self.data.clone()];
        roots.extend(self.corpus.clone());
        let library = Arc::new(Library::new(&roots));
        let scenes = self.scenes(&library)?;
        if self.list {
            for scene in &scenes {
                println!("{:<14} {}", scene.kind.name(), scene.name);
            }
            println!("{} scenes", scenes.len());
            std::process::exit(0);
        }
        let parallel = match self.parallel {
            0 => 2 * std::thread::available_parallelism().map_or(2, usize::from),
            given => given,
        };
        let scripts = scenes
            .iter()
            .map(|scene| (scene.name.clone(), scene.replies.clone()))
            .collect::<BTreeMap<_, _>>();
        let endpoint = Endpoint::start(scripts).await?;
        let outcomes = self
            .play_all(&scenes, &library, &endpoint, parallel, &[], "scenes")
            .await?;
        let mut without = Vec::new();
        let mut remarks = Vec::new();
        if self.compare {
            let (options, missing) = known_options()?;
            if !missing.is_empty() {
                remarks.push(format!(
                    "This build's server has no {}: the comparison is without it.",
                    missing.join(" and no ")
                ));
            }
            let harmless: Vec<Scene> = scenes
                .iter()
                .filter(|scene| scene.kind.is_harmless())
                .cloned()
                .collect();
            without = self
                .play_all(
                    &harmless, &library, &endpoint, parallel, &options, "without",
                )
                .await?;
        }
        let failed = outcomes.iter().filter(|outcome| !outcome.passed()).count();
        let mut report = table::report(&outcomes, &without, parallel, &self.serve, remarks);
        if let Some(dir) = &self.report {
            pictures::write(dir, &outcomes, &report)?;
            report.remark(format!("Pictures: {}", dir.join("index.html").display()));
        }
        if self.strict && failed > 0 {
            report.print();
            bail!("{failed} of {} scenes failed", outcomes.len());
        }
        Ok(report)
    }

    fn scenes(&self, library: &Library) -> anyhow::Result<Vec<Scene>> {
        let mut scenes = duologue_scenes::load_dir(&self.scenes)?;
        if self.corpus.is_some() {
            let more = duologue_scenes::load_dir(&self.scenes.join("corpus"))?;
            scenes.extend(
                more.into_iter()
                    .filter(|scene| clips(scene).iter().all(|clip| library.has(clip))),
            );
        }
        if !self.only.is_empty() {
            scenes.retain(|scene| self.only.iter().any(|glob| matches(glob, &scene.name)));
        }
        if scenes.is_empty() {
            bail!("no scene is called so; --list lists them");
        }
        Ok(scenes)
    }

    async fn play_all(
        &self,
        scenes: &[Scene],
        library: &Arc<Library>,
        endpoint: &Endpoint,
        parallel: usize,
        more: &[String],
        what: &'static str,
    ) -> anyhow::Result<Vec<Outcome>> {
        let mut options = endpoint.serve_options();
        options.extend(["--max-sessions".to_owned(), (parallel + 2).to_string()]);
        // Scenes are played on the machine that serves them: a small recognizer leaves it room.
        if !self.serve.iter().any(|option| option.starts_with("--asr")) {
            options.extend(["--asr".to_owned(), "whisper-tiny.en".to_owned()]);
        }
        options.extend(self.serve.iter().chain(more).cloned());
        let server = Server::start(&options).await?;
        let url = server.url.clone();
        let bar = progress(scenes.len(), what);
        let mut outcomes = Vec::new();
        let mut playing =
            futures_util::stream::iter(scenes.iter().enumerate().map(|(at, scene)| {
                let (url, library, scene) = (url.clone(), library.clone(), scene.clone());
                async move { (at, play_or_say_why(&url, &scene, &library).await) }
            }))
            .buffer_unordered(parallel);
        while let Some((at, trace)) = playing.next().await {
            let outcome = Outcome::of(scenes[at].clone(), trace);
            if !outcome.passed() {
                bar.suspend(|| eprintln!("failed: {}: {}", outcome.scene.name, outcome.wrong()));
            }
            bar.inc(1);
            if bar.is_hidden() && (outcomes.len() + 1).is_multiple_of(20) {
                eprintln!("{} of {} {what}", outcomes.len() + 1, scenes.len());
            }
            outcomes.push((at, outcome));
        }
        drop(playing);
        // What a busy machine spoilt is played again, alone; the worst first, and not for ever.
        outcomes.sort_by(|(_, a), (_, b)| b.trace.late.total_cmp(&a.trace.late));
        let spoilt = outcomes
            .iter_mut()
            .filter(|(_, outcome)| outcome.trace.late > TOO_LATE);
        for (at, outcome) in spoilt.take(MOST_AGAIN) {
            bar.set_message(format!("again: {}", outcome.scene.name));
            let trace = play_or_say_why(&url, &scenes[*at], library).await;
            if trace.late < outcome.trace.late {
                *outcome = Outcome::of(scenes[*at].clone(), trace);
            }
        }
        bar.finish_and_clear();
        server.stop().await?;
        outcomes.sort_by_key(|(at, _)| *at);
        Ok(outcomes.into_iter().map(|(_, outcome)| outcome).collect())
    }
}

/// A scene that cannot be played has failed; the others are played all the same.
async fn play_or_say_why(url: &str, scene: &Scene, library: &Library) -> Trace {
    let played = tokio::time::timeout(LONGEST, play::play(url, scene, library)).await;
    let error = match played {
        Ok(Ok(trace)) => return trace,
        Ok(Err(error)) => format!("{error:#}"),
        Err(_) => format!("it took more than {} s", LONGEST.as_secs()),
    };
    Trace {
        errors: vec![error],
        ..Trace::default()
    }
}

fn progress(scenes: usize, what: &'static str) -> ProgressBar {
    let bar = ProgressBar::new(scenes as u64);
    if let Ok(style) =
        ProgressStyle::with_template("{prefix} {bar:30} {pos}/{len} {elapsed} of {duration} {msg}")
    {
        bar.set_style(style);
    }
    bar.set_prefix(what);
    bar.enable_steady_tick(Duration::from_millis(500));
    bar
}

/// Which of the options that take things away this build has, and which it has not.
fn known_options() -> anyhow::Result<(Vec<String>, Vec<&'static str>)> {
    let help = std::process::Command::new(std::env::current_exe()?)
        .args(["serve", "--help"])
        .output()
        .context("cannot ask for the server's options")?;
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    let (mut options, mut missing) = (Vec::new(), Vec::new());
    for (option, value) in WITHOUT {
        if help.contains(option) {
            options.extend([option.to_owned(), value.to_owned()]);
        } else {
            missing.push(option);
        }
    }
    Ok((options, missing))
}

/// The clips that a scene is made of.
fn clips(scene: &Scene) -> Vec<String> {
    let mut clips: Vec<String> = scene
        .background
        .iter()
        .map(|background| background.noise.clone())
        .collect();
    for step in &scene.script {
        if let Act::Say(parts) | Act::Sound(parts) = step.act() {
            clips.extend(parts.into_iter().filter_map(|part| match part {
                Spoken::Clip(clip) => Some(clip),
                Spoken::Pause(_) => None,
            }));
        }
    }
    clips
}

/// Whether a name matches a pattern in which `*` stands for anything.
fn matches(glob: &str, name: &str) -> bool {
    match glob.split_once('*') {
        None => glob == name,
        Some((before, after)) => name.strip_prefix(before).is_some_and(|rest| {
            (0..=rest.len())
                .filter(|at| rest.is_char_boundary(*at))
                .any(|at| matches(after, &rest[at..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_anything() {
        for (glob, name, expected) in [
            ("*", "a/b", true),
            ("a/*", "a/b", true),
            ("a/*", "b/a", false),
            ("*jfk*", "x/jfk+1", true),
            ("a", "ab", false),
            ("a*b*c", "a1b2c", true),
            ("a*b*c", "a1c2b", false),
        ] {
            assert_eq!(matches(glob, name), expected, "{glob} {name}");
        }
    }
}
