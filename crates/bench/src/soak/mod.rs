//! Hours of conversation, or minutes: several clients talk with one server at once, each with questions, a prompt
//! and a codeword of its own, and it is watched whether anything grows, stalls, runs dry or is crossed.

mod client;
mod pictures;
pub mod samples;
pub mod talker;
pub mod verdict;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use duologue_asr::{Cancel, LoadOptions, Options};
use duologue_client::{RATE, read_sound};
use duologue_scenes::Reply;
use duologue_voicepack::VoicepackStore;
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinError;

use super::asr::clips;
use super::report::{Report, percentile};
use super::server::Server;
use super::turns::endpoint::{Endpoint, instructions};
use samples::Sample;
use talker::{Notes, Question};
use verdict::{Measured, Verdict, judge};

/// Words that a recognizer takes for no other of them.
const CODEWORDS: [&str; 24] = [
    "apple",
    "bicycle",
    "camera",
    "dolphin",
    "elephant",
    "forest",
    "guitar",
    "hospital",
    "island",
    "jacket",
    "kitchen",
    "lemon",
    "mountain",
    "notebook",
    "ocean",
    "pencil",
    "rabbit",
    "sandwich",
    "telephone",
    "umbrella",
    "village",
    "window",
    "yellow",
    "zebra",
];
/// How long the scripted language model thinks.
const THINKS_MS: u64 = 250;
/// Recognizer that listens to the clients' replies when all is over.
const LISTENS: &str = "whisper-tiny.en";

/// Who writes the replies
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mind {
    /// A scripted endpoint; each client's replies hold a codeword, so that a crossing of sessions is seen
    Scripted,
    /// The server's own language model
    Embedded,
}

/// Long conversations of several clients at once: does anything grow, stall, run dry or cross?
///
/// Each client asks recorded questions over a WebSocket in real time, listens, speaks over every third reply, and
/// notes what it hears. The server is started for it; what its process holds is looked at every second.
///
/// Examples:
///   duologue bench soak --sessions 5 --minutes 10 --report report      # pictures: report/index.html
///   duologue bench soak --sessions 2 --minutes 1 -- --voice tone       # cheap
///   duologue bench soak --mind embedded                                # the server's own language model
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct SoakBench {
    /// Conversations at once
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    sessions: u16,

    /// How long they last
    #[arg(long, default_value_t = 10.0, value_name = "MINUTES", value_parser = minutes)]
    minutes: f64,

    /// Who writes the replies
    #[arg(long, value_enum, default_value = "scripted")]
    mind: Mind,

    /// Folder of the questions, with a speech.tsv that has the columns `file` and `transcript`
    #[arg(long, default_value = "tests/data/speech", value_name = "DIR")]
    corpus: PathBuf,

    /// Write a page with the measures over time to this folder
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,

    /// Print what did not hold, and end well all the same
    #[arg(long)]
    lenient: bool,

    /// More options for the server that is started, such as `--asr whisper-tiny.en`
    #[arg(last = true, value_name = "OPTION")]
    serve: Vec<String>,
}

fn minutes(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(minutes) if (0.1..=10_000.0).contains(&minutes) => Ok(minutes),
        _ => Err(format!(
            "{text:?} is no number of minutes: use 0.1 to 10000"
        )),
    }
}

/// What came of clients that talked at once.
pub struct Soaked {
    /// Of each client.
    pub notes: Vec<Notes>,
    /// Clients whose session ended before its time, and why.
    pub lost: Vec<String>,
    /// Of the server's process.
    pub samples: Vec<Sample>,
    /// Underruns that the server counted meanwhile, if it counts them.
    pub server_underruns: Option<f64>,
    /// How long it lasted, seconds.
    pub seconds: f64,
}

/// The conversations of a soak: what each client is told to be, and its codeword.
pub struct Cast {
    prompts: Vec<String>,
    codewords: Option<Arc<Vec<String>>>,
    questions: Arc<Vec<Question>>,
}

impl Cast {
    /// For so many clients, with what is recorded in a folder. `scripted`: each has a codeword.
    ///
    /// # Errors
    /// Recordings that are not there.
    pub fn new(clients: usize, corpus: &Path, scripted: bool) -> anyhow::Result<Self> {
        let mut questions = Vec::new();
        for (file, transcript) in clips(corpus, 1)? {
            let question = Question::new(&read_sound(&file)?, &transcript);
            questions.push(question.with_context(|| format!("{} is silent", file.display()))?);
        }
        let words: Vec<String> = (0..clients).map(codeword).collect();
        let prompts = (0..clients).map(|number| match scripted {
            true => instructions(&format!("client-{number}")),
            false => {
                format!("You are guide number {number}. Answer in one or two short sentences.")
            }
        });
        Ok(Self {
            prompts: prompts.collect(),
            codewords: scripted.then(|| Arc::new(words)),
            questions: Arc::new(questions),
        })
    }

    /// What the language model says to each.
    pub fn scripts(&self) -> BTreeMap<String, Vec<Reply>> {
        let words = self.codewords.iter().flat_map(|words| words.iter());
        words
            .enumerate()
            .map(|(number, word)| (format!("client-{number}"), replies(word)))
            .collect()
    }
}

/// The codeword of a client. Where there are more clients than words, the later ones have two in one.
fn codeword(client: usize) -> String {
    let word = |n: usize| CODEWORDS[n % CODEWORDS.len()];
    match client / CODEWORDS.len() {
        0 => word(client).to_owned(),
        round => format!("{}{}", word(client), word(client + round)),
    }
}

fn replies(word: &str) -> Vec<Reply> {
    let texts = [
        format!(
            "Your word is {word}. The old ship left the harbour early that morning, and the wind was cold."
        ),
        format!(
            "I said {word}. At noon the sun came out, and the captain looked at the quiet sea. Remember {word}."
        ),
        format!("Once more, it is {word}. Nobody on board knew how long the journey would be."),
    ];
    // A conversation is longer than its script, which begins anew.
    let reply = |n: usize| Reply {
        text: texts[n % texts.len()].clone(),
        think_ms: THINKS_MS,
    };
    (0..300).map(reply).collect()
}

impl Cast {
    /// The first so many of them.
    pub fn of(&self, clients: usize) -> Self {
        Self {
            prompts: self.prompts.iter().take(clients).cloned().collect(),
            codewords: self.codewords.clone(),
            questions: Arc::clone(&self.questions),
        }
    }

    /// What one of them does until it is `over`; it notes when by the time since `started`.
    pub fn talk(
        &self,
        number: usize,
        server: &Server,
        started: Instant,
        over: watch::Receiver<bool>,
    ) -> impl Future<Output = (Notes, anyhow::Result<()>)> + Send + use<> {
        let codeword = self.codewords.as_ref().and_then(|all| {
            let own = all.get(number)?.clone();
            Some((own, Arc::clone(all)))
        });
        let talker = talker::Talker::new(number, Arc::clone(&self.questions), codeword);
        let prompt = self.prompts.get(number).cloned().unwrap_or_default();
        client::talk(server.url.clone(), prompt, talker, started, over)
    }
}

/// Lets clients talk with a server for a time.
///
/// # Errors
/// A system without `/proc`, or a server that has ended.
pub async fn soak(server: &Server, cast: &Cast, time: Duration) -> anyhow::Result<Soaked> {
    let process = server.process().context("the server has ended")?;
    let before = server.metric("duologue_playback_underruns_total").await;
    let started = Instant::now();
    let (end, over) = watch::channel(false);
    let clients: Vec<_> = (0..cast.prompts.len())
        .map(|number| tokio::spawn(cast.talk(number, server, started, over.clone())))
        .collect();
    let clients = async {
        let mut clients = std::pin::pin!(futures_util::future::join_all(clients));
        tokio::select! {
            // All have lost their sessions.
            ended = &mut clients => return ended,
            () = tokio::time::sleep(time) => {}
        }
        let _ = end.send(true);
        clients.await
    };
    let mut samples = Vec::new();
    let ended = tokio::select! {
        ended = clients => ended,
        () = samples::watch(process, started, &mut samples) => bail!("the server ended before its time"),
    };
    let after = server.metric("duologue_playback_underruns_total").await;
    let (notes, lost) = came_of(ended)?;
    Ok(Soaked {
        notes,
        lost,
        samples,
        server_underruns: after.map(|after| after - before.unwrap_or(0.0)),
        seconds: started.elapsed().as_secs_f64(),
    })
}

/// What clients noted that have ended, and those whose sessions ended before their time.
pub fn came_of(
    ended: Vec<Result<(Notes, anyhow::Result<()>), JoinError>>,
) -> anyhow::Result<(Vec<Notes>, Vec<String>)> {
    let (mut notes, mut lost) = (Vec::new(), Vec::new());
    for (number, ended) in ended.into_iter().enumerate() {
        let (noted, end) = ended?;
        notes.push(noted);
        if let Err(why) = end {
            lost.push(format!("client {number}: {why:#}"));
        }
    }
    Ok((notes, lost))
}

impl SoakBench {
    pub async fn run(self) -> anyhow::Result<Report> {
        let clients = usize::from(self.sessions);
        let scripted = self.mind == Mind::Scripted;
        let cast = Cast::new(clients, &self.corpus, scripted)?;
        let endpoint = Endpoint::start(cast.scripts()).await?;
        let mut options = match scripted {
            true => endpoint.serve_options(),
            false => Vec::new(),
        };
        options.extend(["--max-sessions".to_owned(), (clients + 2).to_string()]);
        options.extend(["--idle-timeout".to_owned(), "0".to_owned()]);
        options.extend(self.serve.iter().cloned());
        let server = Server::start(&options).await?;
        let time = Duration::from_secs_f64(self.minutes * 60.0);
        let soaked = soak(&server, &cast, time).await?;
        let peak = server.peak_memory();
        server.stop().await?;
        // The tone has no words to listen for.
        let tone = self.serve.iter().any(|option| option == "tone");
        let crossed_sound = match &cast.codewords {
            Some(words) if !tone => listen(&soaked.notes, words).await?,
            _ => (0, 0),
        };
        let verdicts = judge(&Measured {
            notes: &soaked.notes,
            lost: &soaked.lost,
            samples: &soaked.samples,
            server_underruns: soaked.server_underruns,
            crossed_sound,
            seconds: soaked.seconds,
        });
        let mut report = self.report_of(&soaked, &verdicts, peak);
        if let Some(folder) = &self.report {
            pictures::write(folder, &soaked, &report)?;
            report.remark(format!("Pictures: {}", folder.join("index.html").display()));
        }
        let failed = verdicts.iter().filter(|verdict| !verdict.held).count();
        if failed > 0 && !self.lenient {
            report.fail(format!("{failed} of {} did not hold", verdicts.len()));
        }
        Ok(report)
    }

    fn report_of(&self, soaked: &Soaked, verdicts: &[Verdict], peak: Option<u64>) -> Report {
        let mut report = Report::new(
            "soak",
            &["over the whole time", "we want", "found", "held"],
            figures(soaked, verdicts),
        );
        for verdict in verdicts {
            report.row(vec![
                verdict.what.to_owned(),
                verdict.wanted.clone(),
                verdict.found.clone(),
                if verdict.held { "yes" } else { "no" }.to_owned(),
            ]);
        }
        let load = samples::mean(&soaked.samples, (0.0, 1.0), |sample| sample.load);
        let cores = samples::mean(&soaked.samples, (0.1, 1.0), |sample| sample.cores);
        let jitter = verdict::all(&soaked.notes, |notes| &notes.jitter);
        let spoken_on: usize = soaked.notes.iter().map(|notes| notes.spoken_on).sum();
        report.remark(format!(
            "{} conversations for {:.1} minutes over WebSockets in real time, replies {}. The server took {cores:.2} \
             cores in the mean, {:.2} GB of memory at most; load average {load:.1} in the mean. Sound came with a jitter \
             of {:.1} ms (p95). Replies that were spoken over and went on: {spoken_on}.",
            self.sessions,
            soaked.seconds / 60.0,
            match self.mind {
                Mind::Scripted => "scripted",
                Mind::Embedded => "by the server's own model",
            },
            peak.unwrap_or(0) as f64 / 1e9,
            percentile(&jitter, 0.95),
        ));
        for trouble in soaked.lost.iter().chain(
            soaked
                .notes
                .iter()
                .flat_map(|notes| notes.crossed.iter().chain(&notes.errors)),
        ) {
            report.remark(trouble);
        }
        report
    }
}

fn figures(soaked: &Soaked, verdicts: &[Verdict]) -> serde_json::Value {
    let spread = |of: fn(&Notes) -> &Vec<(f64, f64)>| {
        let values = verdict::all(&soaked.notes, of);
        json!({"p50": percentile(&values, 0.5), "p95": percentile(&values, 0.95),
               "max": percentile(&values, 1.0), "count": values.len()})
    };
    let samples: Vec<_> = soaked
        .samples
        .iter()
        .map(|s| json!([s.at, s.megabytes, s.cores, s.files, s.threads, s.load]))
        .collect();
    json!({
        "seconds": soaked.seconds,
        "first_audio_ms": spread(|notes| &notes.first_audio),
        "barge_in_ms": spread(|notes| &notes.barge_in),
        "jitter_ms": spread(|notes| &notes.jitter),
        "underruns_ms": spread(|notes| &notes.underruns),
        "answered": soaked.notes.iter().map(|notes| notes.answered).collect::<Vec<_>>(),
        "samples": {"columns": ["s", "mb", "cores", "files", "threads", "load"], "rows": samples},
        "verdicts": verdicts.iter().map(|v| json!({"what": v.what, "found": v.found, "held": v.held})).collect::<Vec<_>>(),
    })
}

/// Listens to the first replies of each client: how many hold another's codeword, of how many.
async fn listen(notes: &[Notes], words: &Arc<Vec<String>>) -> anyhow::Result<(usize, usize)> {
    let store = VoicepackStore::open_default()?;
    let pack = store.find(LISTENS)?;
    let replies: Vec<(String, Vec<i16>)> = notes
        .iter()
        .zip(words.iter())
        .flat_map(|(notes, own)| {
            notes
                .replies
                .iter()
                .map(|reply| (own.clone(), reply.clone()))
        })
        .filter(|(_, reply)| reply.len() > RATE as usize)
        .collect();
    let all = Arc::clone(words);
    tokio::task::spawn_blocking(move || {
        let recognizer = duologue_asr::load(&pack, &LoadOptions::default())?;
        let mut crossed = 0;
        for (own, reply) in &replies {
            let sound = duologue_audio::pcm::i16_to_f32(reply);
            let heard = duologue_audio::resample(&sound, RATE, duologue_asr::SAMPLE_RATE)?;
            let heard = recognizer.transcribe(&heard, &Options::default(), &Cancel::default())?;
            let heard = talker::words(&heard.text);
            let others = all.iter().filter(|word| *word != own);
            crossed += usize::from(others.into_iter().any(|word| heard.contains(word)));
        }
        Ok((crossed, replies.len()))
    })
    .await?
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_client_has_a_word_of_its_own_and_is_told_no_other() {
        let words: BTreeSet<String> = (0..100).map(codeword).collect();
        assert_eq!(words.len(), 100);
        let said = |client: usize| talker::words(&replies(&codeword(client))[1].text);
        for client in 0..24 {
            let told = said(client);
            let known = (0..24).filter(|other| told.contains(&codeword(*other)));
            assert_eq!(known.collect::<Vec<_>>(), [client]);
        }
    }
}
