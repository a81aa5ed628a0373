//! The four ways to kill what conversations run on.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use duologue_rpc::ListModelsRequest;
use duologue_rpc::tts_worker_client::TtsWorkerClient;
use futures_util::future::join_all;
use indicatif::ProgressBar;
use tokio::sync::{Barrier, Mutex, Semaphore};

use super::conversation::{Conversation, Heard};
use super::{ChaosBench, Endpoint, Outcome, TURNS, progress, script};
use crate::program::Program;

/// Never struck.
const NEVER: Duration = Duration::from_secs(3_600);
/// For a conversation to go on elsewhere.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two attempts to be let in.
const AGAIN: Duration = Duration::from_millis(50);

type Named = (String, Outcome);

impl ChaosBench {
    // ---- a worker ----

    /// Kills, or freezes, the worker that speaks: each conversation in its own time.
    pub(super) async fn worker(&self, endpoint: &Endpoint) -> anyhow::Result<Vec<Named>> {
        let lanes = usize::from(self.at_once).min(self.conversations.into());
        let next = AtomicUsize::new(0);
        let bar = progress("workers", self.conversations.into());
        let lanes = (0..lanes).map(|_| self.lane(endpoint, &next, &bar));
        let mut killed = Outcome::default();
        let mut frozen = Outcome::default();
        for lane in join_all(lanes).await {
            let (one, other) = lane?;
            killed.add(one);
            frozen.add(other);
        }
        bar.finish_and_clear();
        let named = [("a worker, kill -9", killed), ("a worker, hangs", frozen)];
        let some = named
            .into_iter()
            .filter(|(_, outcome)| outcome.conversations > 0);
        Ok(some
            .map(|(name, outcome)| (name.to_owned(), outcome))
            .collect())
    }

    /// A server with two workers, which holds one conversation after the other.
    async fn lane(
        &self,
        endpoint: &Endpoint,
        next: &AtomicUsize,
        bar: &ProgressBar,
    ) -> anyhow::Result<(Outcome, Outcome)> {
        let workers = Mutex::new(vec![Program::worker().await?, Program::worker().await?]);
        let server = Program::server(&self.options(endpoint, &workers.lock().await, None)).await?;
        let (mut killed, mut frozen) = (Outcome::default(), Outcome::default());
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= self.conversations.into() {
                return Ok((killed, frozen));
            }
            let freeze = number % 4 == 3;
            let outcome = match freeze {
                true => &mut frozen,
                false => &mut killed,
            };
            outcome.conversations += 1;
            let struck = AtomicUsize::new(workers.lock().await.len());
            let outcome_of =
                self.strike_worker(number, &server, &workers, &struck, freeze, outcome);
            if let Err(error) = outcome_of.await {
                let why = format!("conversation {number}: {error:#}");
                outcome.failures.push(why);
            }
            if let Some(worker) = workers.lock().await.get_mut(struck.into_inner()) {
                worker.kill().await?;
                worker.start().await?;
            }
            bar.inc(1);
        }
    }

    async fn strike_worker(
        &self,
        number: usize,
        server: &Program,
        workers: &Mutex<Vec<Program>>,
        struck: &AtomicUsize,
        freeze: bool,
        outcome: &mut Outcome,
    ) -> anyhow::Result<()> {
        let mut conversation = Conversation::begin(&server.url(), &script(number)).await?;
        for turn in 0..2 {
            let text = self.text(number, turn);
            let at = if turn == 0 {
                self.moment(number)
            } else {
                NEVER
            };
            let strike = async || {
                let mut workers = workers.lock().await;
                let at = speaks(&workers).await?;
                struck.store(at, Ordering::Relaxed);
                match freeze {
                    true => workers[at].freeze(),
                    false => workers[at].kill().await,
                }
            };
            let Heard::Reply(reply) = conversation.ask("And then?", &text, at, strike).await?
            else {
                bail!("the connection was lost");
            };
            if turn == 0 {
                outcome.gaps.push(reply.gap.as_secs_f64() * 1_000.0);
                if reply.failovers == 0 {
                    bail!("the reply was over before the worker was struck");
                }
            }
            outcome.replies += 1;
            outcome.lost += reply.fate.lost;
            outcome.repeated = outcome.repeated.max(reply.fate.repeated);
            if !reply.is_whole(&text) {
                bail!("turn {turn}: {:?} of {text:?}", reply);
            }
        }
        conversation.close().await;
        Ok(())
    }

    // ---- a server ----

    /// Kills the server while it speaks in all conversations at once; they go on at the other.
    pub(super) async fn orchestrator(&self, endpoint: &Endpoint) -> anyhow::Result<Named> {
        let redis = Program::redis().await?;
        let workers = vec![Program::worker().await?];
        let options = self.options(endpoint, &workers, Some(&redis));
        let mut here = Program::server(&options).await?;
        let mut there = Program::server(&options).await?;
        let mut outcome = Outcome::default();
        let bar = progress("servers", self.conversations.into());
        let numbers: Vec<usize> = (0..self.conversations.into()).collect();
        for group in numbers.chunks(self.at_once.into()) {
            let all_ready = Barrier::new(group.len());
            let speaking = Semaphore::new(0);
            let killed = Mutex::new(None);
            let (from, to) = (here.url(), there.url());
            let conversations = group.iter().map(|number| {
                self.go_on_elsewhere(*number, (&from, &to), &all_ready, &speaking, &killed)
            });
            let strike = async {
                let all = speaking.acquire_many(group.len() as u32).await?;
                all.forget();
                *killed.lock().await = Some(Instant::now());
                here.kill().await
            };
            let (outcomes, struck) = tokio::join!(join_all(conversations), strike);
            struck?;
            outcomes.into_iter().for_each(|one| outcome.add(one));
            bar.inc(group.len() as u64);
            here.start().await?;
            std::mem::swap(&mut here, &mut there);
        }
        bar.finish_and_clear();
        Ok(("a server, kill -9".to_owned(), outcome))
    }

    async fn go_on_elsewhere(
        &self,
        number: usize,
        (from, to): (&str, &str),
        all_ready: &Barrier,
        speaking: &Semaphore,
        killed: &Mutex<Option<Instant>>,
    ) -> Outcome {
        let mut outcome = Outcome {
            conversations: 1,
            ..Outcome::default()
        };
        let told = AtomicBool::new(false);
        let before = async {
            let mut conversation = Conversation::begin(from, &script(number)).await?;
            self.turn(&mut conversation, number, 0, &mut outcome)
                .await?;
            anyhow::Ok(conversation)
        };
        let before = before.await;
        // Whoever failed is not waited for.
        all_ready.wait().await;
        let went = async {
            let mut conversation = before?;
            let text = self.text(number, 1);
            // Something of it must have been written down.
            let at = self.moment(number) + Duration::from_millis(600);
            let strike = async || {
                told.store(true, Ordering::Relaxed);
                speaking.add_permits(1);
                Ok(())
            };
            let asked = conversation.ask("And then?", &text, at, strike);
            let Heard::Lost(words) = asked.await? else {
                bail!("the reply was over before the server was killed");
            };
            let texts = resume(&mut conversation, to).await?;
            let since = killed
                .lock()
                .await
                .context("it was lost before it was killed")?;
            outcome
                .resumed
                .push(since.elapsed().as_secs_f64() * 1_000.0);
            let first = self.text(number, 0);
            let [question, answer, again, heard] = texts.as_slice() else {
                bail!("the history has {} messages, not 4: {texts:?}", texts.len());
            };
            if question != "And then?"
                || *answer != first
                || again != "And then?"
                || !text.starts_with(heard.as_str())
            {
                bail!("the history is not what was said: {texts:?}");
            }
            outcome.history = heard.split_whitespace().count().abs_diff(words);
            self.turn(&mut conversation, number, 2, &mut outcome)
                .await?;
            conversation.close().await;
            Ok(())
        };
        let went: anyhow::Result<()> = went.await;
        if !told.load(Ordering::Relaxed) {
            // The blow must not wait for it.
            speaking.add_permits(1);
        }
        if let Err(error) = went {
            outcome
                .failures
                .push(format!("conversation {number}: {error:#}"));
        }
        outcome
    }

    // ---- Redis ----

    /// Takes Redis away while conversations go on, and when it is back, empty, kills the server.
    pub(super) async fn redis(&self, endpoint: &Endpoint) -> anyhow::Result<Named> {
        let mut redis = Program::redis().await?;
        let workers = vec![Program::worker().await?];
        let options = self.options(endpoint, &workers, Some(&redis));
        let mut here = Program::server(&options).await?;
        let there = Program::server(&options).await?;
        let count = usize::from(self.conversations.min(self.at_once));
        let away = Duration::from_secs(self.redis_away);
        let bar = progress("redis", count);
        let begun = Barrier::new(count + 1);
        let back = AtomicBool::new(false);
        let written = Barrier::new(count + 1);
        let killed = Barrier::new(count + 1);
        let (from, to) = (here.url(), there.url());
        let conversations = (0..count).map(|number| {
            let (begun, back, written, killed) = (&begun, &back, &written, &killed);
            let (from, to, bar) = (&from, &to, &bar);
            async move {
                let mut outcome = Outcome {
                    conversations: 1,
                    ..Outcome::default()
                };
                let mut turns = 0;
                let before = async {
                    let mut conversation = Conversation::begin(from, &script(number)).await?;
                    self.turn(&mut conversation, number, 0, &mut outcome)
                        .await?;
                    anyhow::Ok(conversation)
                };
                let mut conversation = before.await;
                begun.wait().await;
                if let Ok(conversation) = &mut conversation {
                    turns = 1;
                    // One more after it is back.
                    let mut last = false;
                    while !last && turns < TURNS {
                        last = back.load(Ordering::Relaxed);
                        if let Err(error) =
                            self.turn(conversation, number, turns, &mut outcome).await
                        {
                            outcome
                                .failures
                                .push(format!("conversation {number}: {error:#}"));
                            break;
                        }
                        turns += 1;
                    }
                }
                written.wait().await;
                killed.wait().await;
                let after = async {
                    let mut conversation = conversation?;
                    let since = Instant::now();
                    let texts = resume(&mut conversation, to).await?;
                    outcome
                        .resumed
                        .push(since.elapsed().as_secs_f64() * 1_000.0);
                    let said = (0..turns)
                        .flat_map(|turn| ["And then?".to_owned(), self.text(number, turn)]);
                    if texts != said.collect::<Vec<_>>() {
                        bail!("the history is not what was said in {turns} turns: {texts:?}");
                    }
                    self.turn(&mut conversation, number, turns, &mut outcome)
                        .await
                };
                let after: anyhow::Result<()> = after.await;
                if let Err(error) = after {
                    outcome
                        .failures
                        .push(format!("conversation {number}: {error:#}"));
                }
                bar.inc(1);
                outcome
            }
        });
        let strike = async {
            begun.wait().await;
            redis.kill().await?;
            tokio::time::sleep(away).await;
            redis.start().await?;
            back.store(true, Ordering::Relaxed);
            written.wait().await;
            // The newest of a session is written within the longest pause between two attempts.
            tokio::time::sleep(Duration::from_secs(4)).await;
            here.kill().await?;
            killed.wait().await;
            anyhow::Ok(())
        };
        let (outcomes, struck) = tokio::join!(join_all(conversations), strike);
        struck?;
        bar.finish_and_clear();
        let mut outcome = Outcome::default();
        outcomes.into_iter().for_each(|one| outcome.add(one));
        Ok((
            format!("Redis for {} s, then a server", self.redis_away),
            outcome,
        ))
    }

    // ---- everything, one after the other ----

    /// Asks each worker and each server to end and starts it again, while conversations begin and end.
    pub(super) async fn rolling(&self, endpoint: &Endpoint) -> anyhow::Result<Named> {
        let redis = Program::redis().await?;
        let mut workers = vec![Program::worker().await?, Program::worker().await?];
        let options = self.options(endpoint, &workers, Some(&redis));
        let mut servers = vec![
            Program::server(&options).await?,
            Program::server(&options).await?,
        ];
        let urls: Vec<String> = servers.iter().map(Program::url).collect();
        let next = AtomicUsize::new(0);
        let restarted = AtomicBool::new(false);
        let bar = progress("rolling", self.conversations.into());
        let clients = (0..self.at_once).map(|_| async {
            let mut outcome = Outcome::default();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                // Until all are restarted there is always somebody who talks.
                if number >= self.conversations.into() && restarted.load(Ordering::Relaxed) {
                    return outcome;
                }
                outcome.conversations += 1;
                let script = number % usize::from(self.conversations);
                if let Err(error) = self.talk(script, number, &urls, &mut outcome).await {
                    outcome
                        .failures
                        .push(format!("conversation {number}: {error:#}"));
                }
                bar.inc(1);
            }
        });
        let restarts = async {
            let mut unclean = Vec::new();
            for process in workers.iter_mut().chain(&mut servers) {
                if !process.terminate().await? {
                    unclean.push(format!("{} did not exit with 0", process.url()));
                }
                process.start().await?;
            }
            restarted.store(true, Ordering::Relaxed);
            anyhow::Ok(unclean)
        };
        let (outcomes, unclean) = tokio::join!(join_all(clients), restarts);
        bar.finish_and_clear();
        let mut outcome = Outcome::default();
        outcomes.into_iter().for_each(|one| outcome.add(one));
        outcome.failures.extend(unclean?);
        Ok(("all, one by one, SIGTERM".to_owned(), outcome))
    }

    /// A conversation of three turns with whichever server takes it, and with another where that one ends it.
    async fn talk(
        &self,
        script_number: usize,
        number: usize,
        urls: &[String],
        outcome: &mut Outcome,
    ) -> anyhow::Result<()> {
        let began = Instant::now();
        let mut at = number;
        let mut conversation = loop {
            match Conversation::begin(&urls[at % urls.len()], &script(script_number)).await {
                Ok(conversation) => break conversation,
                Err(error) if began.elapsed() > PATIENCE => return Err(error),
                Err(_) => {
                    at += 1;
                    tokio::time::sleep(AGAIN).await;
                }
            }
        };
        for turn in 0..3 {
            if self
                .turn(&mut conversation, script_number, turn, outcome)
                .await
                .is_err()
            {
                let since = Instant::now();
                at += 1;
                resume(&mut conversation, &urls[at % urls.len()]).await?;
                outcome
                    .resumed
                    .push(since.elapsed().as_secs_f64() * 1_000.0);
                self.turn(&mut conversation, script_number, turn, outcome)
                    .await?;
            }
        }
        conversation.close().await;
        Ok(())
    }

    // ---- what they share ----

    /// A turn that nobody strikes.
    async fn turn(
        &self,
        conversation: &mut Conversation,
        number: usize,
        turn: usize,
        outcome: &mut Outcome,
    ) -> anyhow::Result<()> {
        let text = self.text(number, turn);
        let asked = conversation.ask("And then?", &text, NEVER, async || Ok(()));
        let Heard::Reply(reply) = asked.await? else {
            bail!("the connection was lost in turn {turn}");
        };
        outcome.replies += 1;
        outcome.gaps.push(reply.gap.as_secs_f64() * 1_000.0);
        outcome.lost += reply.fate.lost;
        outcome.repeated = outcome.repeated.max(reply.fate.repeated);
        match reply.is_whole(&text) {
            true => Ok(()),
            false => bail!("turn {turn}: {reply:?} of {text:?}"),
        }
    }

    /// How much of a reply is heard before the blow: another time in each conversation.
    fn moment(&self, number: usize) -> Duration {
        // A word takes some 390 ms, and the worker is 1.7 s ahead: it must not be done.
        let latest = u64::from(self.words) * 100;
        Duration::from_millis(200 + (number as u64 * 617) % latest)
    }

    fn options(
        &self,
        endpoint: &Endpoint,
        workers: &[Program],
        redis: Option<&Program>,
    ) -> Vec<String> {
        let workers: Vec<String> = workers.iter().map(Program::url).collect();
        let sessions = (self.at_once * 2).to_string();
        let mut options: Vec<String> = [
            "--voice",
            "tone",
            "--vad",
            "light:2",
            "--no-end-of-turn",
            "--asr",
            "whisper-tiny.en",
            "--max-sessions",
            &sessions,
            "--worker",
            &workers.join(","),
        ]
        .map(str::to_owned)
        .to_vec();
        options.extend(endpoint.serve_options());
        if let Some(redis) = redis {
            options.extend(["--journal".to_owned(), redis.url()]);
        }
        options.extend_from_slice(&self.serve);
        options
    }
}

/// Which worker has a session.
async fn speaks(workers: &[Program]) -> anyhow::Result<usize> {
    let began = Instant::now();
    loop {
        let mut with_session = Vec::new();
        for (at, worker) in workers.iter().enumerate() {
            let mut client = TtsWorkerClient::connect(worker.url()).await?;
            let models = client.list_models(ListModelsRequest {}).await?.into_inner();
            if models.models.iter().any(|model| model.sessions > 0) {
                with_session.push(at);
            }
        }
        match with_session[..] {
            [] => bail!("no worker has a session"),
            [at] => return Ok(at),
            // The session of the conversation before has not been ended yet.
            _ if began.elapsed() < Duration::from_secs(1) => tokio::time::sleep(AGAIN).await,
            _ => bail!("several workers have a session"),
        }
    }
}

/// Goes on with a conversation, as soon as it is let in.
async fn resume(conversation: &mut Conversation, url: &str) -> anyhow::Result<Vec<String>> {
    let began = Instant::now();
    loop {
        match conversation.resume(url).await {
            Err(_) if began.elapsed() < PATIENCE => tokio::time::sleep(AGAIN).await,
            done => return done,
        }
    }
}
