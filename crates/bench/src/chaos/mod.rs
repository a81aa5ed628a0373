//! Conversations while the processes that hold them are killed: what is lost, what is heard twice, and for how long
//! nothing is heard.
//!
//! Everything is real and of the bench's own: servers, workers and Redis in processes, WebSockets, a scripted
//! language model over HTTP. The voice is the test tone, whose words can be told from the sound alone, so what was
//! heard is known at the client and taken from nobody's word.

mod conversation;
mod scenarios;
mod words;

use std::collections::BTreeMap;

use clap::{Args, ValueEnum};
use duologue_scenes::Reply as Scripted;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::report::{Report, percentile};
use super::turns::endpoint::Endpoint;

/// Turns that each script has; the last is said again beyond.
const TURNS: usize = 40;

/// Survival: kills workers, servers and Redis in the middle of conversations and says what came of those
///
/// Examples:
///   duologue bench chaos                                  # all of it, about twenty minutes
///   duologue bench chaos --only worker --conversations 20
///   duologue bench chaos --redis-away 10
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct ChaosBench {
    /// Only this; may be given several times
    #[arg(long, value_enum, value_name = "WHAT")]
    only: Vec<What>,

    /// Conversations of each kind
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    conversations: u16,

    /// Conversations at once
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=50))]
    at_once: u16,

    /// Words of a reply
    #[arg(long, default_value_t = 14, value_name = "N", value_parser = clap::value_parser!(u16).range(6..=60))]
    words: u16,

    /// Seconds for which Redis is gone
    #[arg(long, default_value_t = 60, value_name = "S")]
    redis_away: u64,

    /// Fail when anything was lost
    #[arg(long)]
    strict: bool,

    /// More options for the servers, such as `--asr whisper-base`
    #[arg(last = true, value_name = "OPTION")]
    serve: Vec<String>,
}

/// What is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    /// The worker that speaks, in the middle of an utterance: killed, or frozen
    Worker,
    /// The server, in the middle of a reply; the conversations go on at another
    Orchestrator,
    /// Redis, for a while; then the server
    Redis,
    /// All workers and servers, one after the other, asked to end
    Rolling,
}

/// What came of the conversations of one kind.
#[derive(Default)]
struct Outcome {
    conversations: usize,
    /// Replies that were listened to.
    replies: usize,
    /// Milliseconds in which a listener heard nothing, one for each blow.
    gaps: Vec<f64>,
    /// Milliseconds until a conversation went on elsewhere.
    resumed: Vec<f64>,
    lost: usize,
    /// Of each reply, at most.
    repeated: usize,
    /// Words that were heard and are not in the history, or the other way round, at most.
    history: usize,
    failures: Vec<String>,
}

impl Outcome {
    fn add(&mut self, other: Self) {
        self.conversations += other.conversations;
        self.replies += other.replies;
        self.gaps.extend(other.gaps);
        self.resumed.extend(other.resumed);
        self.lost += other.lost;
        self.repeated = self.repeated.max(other.repeated);
        self.history = self.history.max(other.history);
        self.failures.extend(other.failures);
    }

    fn row(&self, what: &str) -> Vec<String> {
        let times = |times: &[f64]| match times.is_empty() {
            true => String::new(),
            false => format!(
                "{:.0} / {:.0} / {:.0}",
                percentile(times, 0.5),
                percentile(times, 0.95),
                percentile(times, 1.0)
            ),
        };
        vec![
            what.to_owned(),
            format!(
                "{} of {}",
                self.conversations - self.failures.len().min(self.conversations),
                self.conversations
            ),
            times(&self.gaps),
            times(&self.resumed),
            format!("{}", self.lost),
            format!("{}", self.repeated),
            format!("{}", self.history),
        ]
    }

    fn figures(&self) -> Value {
        let times = |times: &[f64]| {
            json!({"p50_ms": percentile(times, 0.5), "p95_ms": percentile(times, 0.95),
                   "most_ms": percentile(times, 1.0), "count": times.len()})
        };
        json!({
            "conversations": self.conversations,
            "replies": self.replies,
            "gap": times(&self.gaps),
            "resumed": times(&self.resumed),
            "words_lost": self.lost,
            "words_repeated_most": self.repeated,
            "history_off_by_most": self.history,
            "failures": self.failures,
        })
    }
}

impl ChaosBench {
    pub async fn run(self) -> anyhow::Result<Report> {
        let scripts: BTreeMap<String, Vec<Scripted>> = (0..usize::from(self.conversations))
            .map(|number| (script(number), self.replies(number)))
            .collect();
        let endpoint = Endpoint::start(scripts).await?;
        let columns = [
            "killed",
            "went on",
            "silence, ms (p50 / p95 / most)",
            "resumed in, ms (p50 / p95 / most)",
            "words lost",
            "heard twice, most a reply",
            "history off by, words",
        ];
        let mut report = Report::new("chaos", &columns, Value::Null);
        let mut figures = serde_json::Map::new();
        let mut failures = Vec::new();
        let all = [What::Worker, What::Orchestrator, What::Redis, What::Rolling];
        for what in all
            .into_iter()
            .filter(|what| self.only.is_empty() || self.only.contains(what))
        {
            let rows = match what {
                What::Worker => self.worker(&endpoint).await?,
                What::Orchestrator => vec![self.orchestrator(&endpoint).await?],
                What::Redis => vec![self.redis(&endpoint).await?],
                What::Rolling => vec![self.rolling(&endpoint).await?],
            };
            for (name, outcome) in rows {
                report.row(outcome.row(&name));
                figures.insert(name.clone(), outcome.figures());
                let told = outcome.failures.iter().map(|why| format!("{name}: {why}"));
                failures.extend(told);
            }
        }
        report.remark(format!(
            "Words are told from the sound that the client played. {} at once, replies of {} words.",
            self.at_once, self.words
        ));
        for failure in failures.iter().take(10) {
            report.remark(format!("FAILED: {failure}"));
        }
        report.set_figures(Value::Object(figures));
        if self.strict && !failures.is_empty() {
            report.fail(format!("{} conversations did not survive", failures.len()));
        }
        Ok(report)
    }

    fn replies(&self, number: usize) -> Vec<Scripted> {
        let reply = |turn| Scripted {
            text: self.text(number, turn),
            think_ms: 0,
        };
        (0..TURNS).map(reply).collect()
    }

    /// What the assistant says in a turn of a conversation.
    fn text(&self, conversation: usize, turn: usize) -> String {
        words::text(
            conversation * TURNS + turn.min(TURNS - 1),
            self.words.into(),
        )
    }
}

/// The name of a conversation's script.
fn script(number: usize) -> String {
    format!("chaos/{number}")
}

fn progress(what: &str, length: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} {wide_bar} {pos} of {len}");
    let bar = ProgressBar::new(length as u64).with_message(what.to_owned());
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
