//! How many sessions one machine holds: conversations of more and more clients at once, until a promise breaks; and
//! how many of them a server lets in by itself.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use tokio::process::Child;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::report::{Report, percentile};
use super::server::Server;
use super::sessions::{Ears, voice};
use super::soak::talker::Notes;
use super::soak::{Cast, Soaked, came_of, samples, soak, verdict};
use super::turns::endpoint::Endpoint;

/// Between two who come, where the server decides itself: those before must be in its figures.
const ARRIVE_EVERY: Duration = Duration::from_secs(12);
/// Options of a server that decides by itself, as it does by default; benches switch that off.
const BY_ITSELF: [&str; 6] = [
    "--max-cpu-percent",
    "90",
    "--max-machine-percent",
    "90",
    "--max-lag-ms",
    "150",
];

/// Where the models are
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Models {
    /// In the server, or in a process of its own on this machine
    Local,
    /// Elsewhere: a recognizer and a language model that are scripted, a worker with the test tone. What is
    /// measured is the server alone
    Remote,
    /// First one, then the other
    Both,
}

/// How many sessions hold what is promised, and which promise breaks first
///
/// Clients converse as in `bench soak`, on the machine of the server. With each step there are more of them, until
/// a promise is broken; then the steps between are tried. All clients of a step come at once. At the end they come one
/// after the other to a server that decides by itself whom it takes, and those it took talk on for a step.
///
/// Examples:
///   duologue bench capacity --models local
///   duologue bench capacity --models remote --most 64
///   duologue bench capacity --models local -- --llm-url http://10.0.0.5:8000/v1 --llm-model qwen2.5:7b
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct CapacityBench {
    /// Where the models are
    #[arg(long, value_enum, default_value = "both")]
    models: Models,

    /// Seconds of each step
    #[arg(long, default_value_t = 60, value_name = "S", value_parser = clap::value_parser!(u64).range(20..=3_600))]
    seconds: u64,

    /// Most sessions that are tried
    #[arg(long, default_value_t = 48, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1_000))]
    most: u16,

    /// Promise: from the last sound of a question to the first of its answer, 95 of 100
    #[arg(long, default_value_t = 2_000.0, value_name = "MS")]
    first_audio_ms: f64,

    /// Promise: from the first sound over a reply until it is silent, 95 of 100
    #[arg(long, default_value_t = 300.0, value_name = "MS")]
    barge_in_ms: f64,

    /// Do not try how many the server lets in by itself
    #[arg(long, conflicts_with = "no_steps")]
    no_admission: bool,

    /// Try only that
    #[arg(long)]
    no_steps: bool,

    /// Folder of the questions, with a speech.tsv that has the columns `file` and `transcript`
    #[arg(long, default_value = "tests/data/speech", value_name = "DIR")]
    corpus: PathBuf,

    /// More options for the server that is started
    #[arg(last = true, value_name = "OPTION")]
    serve: Vec<String>,
}

/// Finds the largest number that holds, by doubling and then halving.
#[derive(Debug)]
struct Search {
    held: usize,
    broke: Option<usize>,
    most: usize,
}

impl Search {
    /// What is to be tried next, if anything is.
    fn next(&self) -> Option<usize> {
        match self.broke {
            None if self.held >= self.most => None,
            None => Some((self.held * 2).clamp(1, self.most)),
            Some(broke) => {
                let between = self.held + (broke - self.held) / 2;
                (between > self.held).then_some(between)
            }
        }
    }

    fn tried(&mut self, sessions: usize, held: bool) {
        if held {
            self.held = self.held.max(sessions);
        } else {
            self.broke = Some(self.broke.map_or(sessions, |broke| broke.min(sessions)));
        }
    }
}

/// Servers of the models that are elsewhere; they end when dropped.
struct Elsewhere {
    mind: Endpoint,
    ears: Option<Ears>,
    worker: Option<(Child, String)>,
}

impl CapacityBench {
    pub async fn run(self) -> anyhow::Result<Report> {
        let mut report = Report::new(
            "capacity",
            &[
                "models",
                "sessions",
                "first audio p50 / p95, ms",
                "barge-in p95, ms",
                "gaps in replies",
                "not answered",
                "server's cores",
                "holds",
            ],
            Value::Null,
        );
        let mut figures = Vec::new();
        let all = match self.models {
            Models::Both => vec![Models::Local, Models::Remote],
            one => vec![one],
        };
        for models in all {
            figures.push(self.find(models, &mut report).await?);
        }
        report.set_figures(json!({"steps_seconds": self.seconds, "runs": figures}));
        report.remark(format!(
            "Clients converse over WebSockets on the same machine, each step for {} s; every third reply is spoken over. \
             We want: first audio ≤ {:.0} ms and barge-in ≤ {:.0} ms (p95), no gap, 19 of 20 questions answered.",
            self.seconds, self.first_audio_ms, self.barge_in_ms
        ));
        Ok(report)
    }

    async fn find(&self, models: Models, report: &mut Report) -> anyhow::Result<Value> {
        let most = usize::from(self.most);
        let name = if models == Models::Local {
            "local"
        } else {
            "elsewhere"
        };
        let cast = Arc::new(Cast::new(most, &self.corpus, true)?);
        let elsewhere = self.elsewhere(models, &cast).await?;
        let options = self.options(&elsewhere);
        let server = Server::start(&options).await?;
        // Caches and threads are there before anything is measured.
        soak(&server, &cast.of(1), Duration::from_secs(10)).await?;
        let mut search = Search {
            held: 0,
            broke: None,
            most,
        };
        let mut broken_by = Vec::new();
        let mut steps = Vec::new();
        while let Some(sessions) = search.next().filter(|_| !self.no_steps) {
            eprintln!("models {name}: {sessions} sessions");
            let time = Duration::from_secs(self.seconds);
            let soaked = soak(&server, &cast.of(sessions), time).await?;
            let broken = self.broken(&soaked);
            search.tried(sessions, broken.is_empty());
            report.row(row(name, sessions, &soaked, &broken));
            steps.push(json!({"sessions": sessions, "broken": broken}));
            if search.broke == Some(sessions) {
                broken_by = broken;
            }
        }
        server.stop().await?;
        if !self.no_steps {
            report.remark(held(name, &search, &broken_by));
        }
        let cores = cores();
        let admitted = match self.no_admission {
            true => Value::Null,
            false => self.admission(name, &options, &cast, report).await?,
        };
        Ok(
            json!({"models": name, "cores": cores, "held": search.held, "broke": search.broke,
                  "broken_by": broken_by, "steps": steps, "admitted": admitted}),
        )
    }

    async fn elsewhere(&self, models: Models, cast: &Cast) -> anyhow::Result<Elsewhere> {
        let mind = Endpoint::start(cast.scripts()).await?;
        if models == Models::Local {
            return Ok(Elsewhere {
                mind,
                ears: None,
                worker: None,
            });
        }
        Ok(Elsewhere {
            mind,
            ears: Some(Ears::start().await?),
            worker: Some(voice(self.most.into()).await?),
        })
    }

    fn options(&self, elsewhere: &Elsewhere) -> Vec<String> {
        let most = usize::from(self.most);
        let mut options = elsewhere.mind.serve_options();
        let mut add = |name: &str, value: String| options.extend([name.to_owned(), value]);
        add("--max-sessions", (most + 2).to_string());
        add("--idle-timeout", "0".to_owned());
        add("--language", "en".to_owned());
        if let Some(ears) = &elsewhere.ears {
            add("--asr-url", ears.url());
            add("--asr", "elsewhere".to_owned());
            // They wait for the recognizer elsewhere.
            add("--mind-threads", most.clamp(4, 64).to_string());
        }
        if let Some((_, worker)) = &elsewhere.worker {
            add("--worker", worker.clone());
            add("--voice", "tone".to_owned());
        }
        options.extend(self.serve.iter().cloned());
        options
    }

    /// What was promised and did not hold.
    fn broken(&self, soaked: &Soaked) -> Vec<String> {
        let notes = &soaked.notes;
        let mut broken = Vec::new();
        let mut late = |what: &str, of: fn(&Notes) -> &Vec<(f64, f64)>, limit: f64| {
            let found = percentile(&verdict::all(notes, of), 0.95);
            if found > limit {
                broken.push(format!("{what} is {found:.0} ms (p95)"));
            }
        };
        late(
            "first audio",
            |notes| &notes.first_audio,
            self.first_audio_ms,
        );
        late("barge-in", |notes| &notes.barge_in, self.barge_in_ms);
        let gaps: usize = notes.iter().map(|notes| notes.underruns.len()).sum();
        if gaps > 0 {
            broken.push(format!("replies have {gaps} gaps"));
        }
        let (answered, unanswered) = answers(notes);
        if unanswered * 19 > answered {
            broken.push(format!("{unanswered} questions are not answered"));
        }
        if !soaked.lost.is_empty() {
            broken.push(format!("{} sessions ended", soaked.lost.len()));
        }
        broken
    }

    /// Lets clients come until one is refused; what those that were let in have of it.
    async fn admission(
        &self,
        name: &str,
        options: &[String],
        cast: &Arc<Cast>,
        report: &mut Report,
    ) -> anyhow::Result<Value> {
        let mut options = options.to_vec();
        options.extend(BY_ITSELF.map(str::to_owned));
        let server = Server::start(&options).await?;
        let process = server.process().context("the server has ended")?;
        let began = Instant::now();
        let (end, over) = watch::channel(false);
        let mut talking: Vec<JoinHandle<(Notes, anyhow::Result<()>)>> = Vec::new();
        let mut refused = None;
        while refused.is_none() && talking.len() < usize::from(self.most) {
            let number = talking.len();
            eprintln!("models {name}: client {} comes", number + 1);
            let mut talk = tokio::spawn(cast.talk(number, &server, began, over.clone()));
            match tokio::time::timeout(ARRIVE_EVERY, &mut talk).await {
                Err(_) => talking.push(talk),
                Ok(ended) => refused = Some(ended?.1.err().context("a client ended unasked")?),
            }
        }
        let taken = talking.len();
        let full = began.elapsed().as_secs_f64();
        let mut samples = Vec::new();
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(self.seconds)) => {}
            () = samples::watch(process, Instant::now(), &mut samples) => bail!("the server ended before its time"),
        }
        // All may have lost their sessions.
        let _ = end.send(true);
        let (notes, lost) = came_of(futures_util::future::join_all(talking).await)?;
        server.stop().await?;
        let soaked = Soaked {
            notes: notes.into_iter().map(|notes| notes.since(full)).collect(),
            lost,
            samples,
            server_underruns: None,
            seconds: self.seconds as f64,
        };
        let broken = self.broken(&soaked);
        report.row(row(&format!("{name}, as let in"), taken, &soaked, &broken));
        let why = refused.map(|error| format!("{error:#}"));
        report.remark(format!(
            "A server with models {name} that decides by itself took {taken} sessions, one every {} s{}. Of those it \
             took {}.",
            ARRIVE_EVERY.as_secs(),
            match &why {
                Some(why) => format!("; the next was told: {why}"),
                None => "; none was refused".to_owned(),
            },
            match broken.is_empty() {
                true => "all is held".to_owned(),
                false => format!("not all is held: {}", broken.join(", ")),
            }
        ));
        Ok(json!({"taken": taken, "refused_with": why, "broken": broken}))
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// What the search has found, in words.
fn held(name: &str, search: &Search, broken_by: &[String]) -> String {
    let (held, cores) = (search.held, cores());
    let broke = match search.broke {
        Some(broke) => format!("with {broke}: {}", broken_by.join(", ")),
        None => "more were not tried".to_owned(),
    };
    format!(
        "Models {name}: {held} sessions that come at once hold on {cores} cores, {:.1} a core; {broke}.",
        held as f64 / cores as f64
    )
}

fn answers(notes: &[Notes]) -> (usize, usize) {
    let answered = notes.iter().map(|notes| notes.answered).sum();
    let unanswered = notes.iter().map(|notes| notes.unanswered.len()).sum();
    (answered, unanswered)
}

fn row(name: &str, sessions: usize, soaked: &Soaked, broken: &[String]) -> Vec<String> {
    let notes = &soaked.notes;
    let first = verdict::all(notes, |notes| &notes.first_audio);
    let barge_in = verdict::all(notes, |notes| &notes.barge_in);
    let gaps: usize = notes.iter().map(|notes| notes.underruns.len()).sum();
    let (answered, unanswered) = answers(notes);
    let cores = samples::mean(&soaked.samples, (0.1, 1.0), |sample| sample.cores);
    vec![
        name.to_owned(),
        sessions.to_string(),
        format!(
            "{:.0} / {:.0}",
            percentile(&first, 0.5),
            percentile(&first, 0.95)
        ),
        format!("{:.0}", percentile(&barge_in, 0.95)),
        gaps.to_string(),
        format!("{unanswered} of {}", answered + unanswered),
        format!("{cores:.2}"),
        if broken.is_empty() { "yes" } else { "**no**" }.to_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tries until nothing is left, where so many hold.
    fn found(holds: usize, most: usize) -> (usize, usize) {
        let mut search = Search {
            held: 0,
            broke: None,
            most,
        };
        let mut tries = 0;
        while let Some(sessions) = search.next() {
            assert!((1..=most).contains(&sessions));
            search.tried(sessions, sessions <= holds);
            tries += 1;
        }
        (search.held, tries)
    }

    #[test]
    fn the_largest_number_that_holds_is_found_in_few_tries() {
        for holds in 0..=48 {
            let (held, tries) = found(holds, 48);
            assert_eq!(held, holds);
            assert!(tries <= 12, "{holds}: {tries}");
        }
        assert_eq!(found(100, 10).0, 10, "no more than asked for");
    }
}
