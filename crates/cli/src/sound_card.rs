//! Microphone and loudspeaker. The card runs at its own rate and in its own time; here are 20 ms blocks of mono sound
//! on one side, and a short bounded queue on the other.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use cpal::traits::{DeviceTrait, HostTrait, StreamTrait};
use cpal::{Device, FromSample, Sample, SampleFormat, SizedSample, Stream, StreamConfig};
use duologue_audio::{Resampler, pcm};
use duologue_client::{BLOCK, RATE};
use tokio::sync::mpsc;

/// Blocks of the microphone that wait to be sent: 1 s. When nobody takes them, the newest are lost.
const WAITING_BLOCKS: usize = 50;
/// Silence before the first sound, so that the card never runs dry between two blocks.
const CUSHION: Duration = Duration::from_millis(60);
/// Sound that waits to be played at most; what comes on top replaces the oldest.
const WAITING_SOUND: Duration = Duration::from_secs(2);

/// What a card may hold that it has taken and not yet played.
const IN_THE_CARD: Duration = Duration::from_millis(150);
/// A card that plays nothing for so long is broken.
const STANDSTILL: Duration = Duration::from_secs(3);

/// What the person says, at [`RATE`].
pub struct Microphone {
    blocks: mpsc::Receiver<anyhow::Result<[i16; BLOCK]>>,
    _stream: Stream,
}

impl Microphone {
    /// Opens the one of that name, or the system's choice.
    ///
    /// # Errors
    /// When there is none, or it cannot be used.
    pub fn open(name: Option<&str>) -> anyhow::Result<Self> {
        let host = cpal::default_host();
        let device = match name {
            Some(name) => named(host.input_devices()?, name).context("there is no such microphone")?,
            None => host.default_input_device().context(
                "there is no microphone; speak from a file with --input, or name one with --microphone",
            )?,
        };
        let config = device
            .default_input_config()
            .context("the microphone cannot be used")?;
        let (sender, blocks) = mpsc::channel(WAITING_BLOCKS);
        let format = config.sample_format();
        let config = config.config();
        let stream = match format {
            SampleFormat::F32 => listen::<f32>(&device, config, sender),
            SampleFormat::I16 => listen::<i16>(&device, config, sender),
            SampleFormat::I32 => listen::<i32>(&device, config, sender),
            SampleFormat::U16 => listen::<u16>(&device, config, sender),
            SampleFormat::U8 => listen::<u8>(&device, config, sender),
            other => bail!("the microphone speaks {other}, which is not understood"),
        }?;
        stream.play().context("the microphone does not start")?;
        Ok(Self {
            blocks,
            _stream: stream,
        })
    }

    /// The next block. Safe to drop.
    ///
    /// # Errors
    /// When the microphone is gone.
    pub async fn next(&mut self) -> anyhow::Result<[i16; BLOCK]> {
        match self.blocks.recv().await {
            Some(block) => block,
            None => bail!("the microphone is gone"),
        }
    }
}

fn listen<T>(
    device: &Device,
    config: StreamConfig,
    blocks: mpsc::Sender<anyhow::Result<[i16; BLOCK]>>,
) -> anyhow::Result<Stream>
where
    T: SizedSample,
    f32: FromSample<T>,
{
    let channels = usize::from(config.channels.max(1));
    let mut resampler = Resampler::new(config.sample_rate, RATE)?;
    let mut waiting: Vec<f32> = Vec::new();
    let lost = blocks.clone();
    let heard = move |data: &[T], _: &_| {
        let mono: Vec<f32> = data
            .chunks_exact(channels)
            .map(|frame| frame.iter().map(|s| f32::from_sample(*s)).sum::<f32>() / channels as f32)
            .collect();
        resampler.process_into(&mono, &mut waiting);
        let whole = waiting.len() / BLOCK * BLOCK;
        for sound in waiting.drain(..whole).as_slice().chunks_exact(BLOCK) {
            let mut block = [0; BLOCK];
            block
                .iter_mut()
                .zip(sound)
                .for_each(|(place, sample)| *place = pcm::to_i16(*sample));
            // Full: the connection stands still, and old sound is of no use to it.
            let _ = blocks.try_send(Ok(block));
        }
    };
    let failed = move |error: cpal::Error| {
        if is_final(&error) {
            let _ = lost.try_send(Err(anyhow!("the microphone failed: {error}")));
        } else {
            tracing::debug!(%error, "the microphone skipped");
        }
    };
    device
        .build_input_stream(config, heard, failed, None)
        .context("the microphone cannot be opened")
}

/// What waits to be played, at the card's rate.
#[derive(Default)]
struct Waiting {
    sound: VecDeque<f32>,
    failed: Option<String>,
}

/// Plays to the person.
pub struct Loudspeaker {
    waiting: Arc<Mutex<Waiting>>,
    resampler: Resampler,
    rate: u32,
    _stream: Stream,
}

impl Loudspeaker {
    /// Opens the one of that name, or the system's choice, for sound at `rate`.
    ///
    /// # Errors
    /// When there is none, or it cannot be used.
    pub fn open(name: Option<&str>, rate: u32) -> anyhow::Result<Self> {
        let host = cpal::default_host();
        let device = match name {
            Some(name) => {
                named(host.output_devices()?, name).context("there is no such loudspeaker")?
            }
            None => host.default_output_device().context(
                "there is no loudspeaker; write a file with --output, or name one with --loudspeaker",
            )?,
        };
        let config = device
            .default_output_config()
            .context("the loudspeaker cannot be used")?;
        let format = config.sample_format();
        let config = config.config();
        let waiting = Arc::new(Mutex::new(Waiting::default()));
        let stream = match format {
            SampleFormat::F32 => speak::<f32>(&device, config, &waiting),
            SampleFormat::I16 => speak::<i16>(&device, config, &waiting),
            SampleFormat::I32 => speak::<i32>(&device, config, &waiting),
            SampleFormat::U16 => speak::<u16>(&device, config, &waiting),
            SampleFormat::U8 => speak::<u8>(&device, config, &waiting),
            other => bail!("the loudspeaker wants {other}, which cannot be made"),
        }?;
        stream.play().context("the loudspeaker does not start")?;
        Ok(Self {
            waiting,
            resampler: Resampler::new(rate, config.sample_rate)?,
            rate: config.sample_rate,
            _stream: stream,
        })
    }

    /// Puts sound behind what waits.
    ///
    /// # Errors
    /// When the loudspeaker is gone.
    pub fn play(&mut self, samples: &[i16]) -> anyhow::Result<()> {
        let sound = self.resampler.process(&pcm::i16_to_f32(samples));
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(why) = &waiting.failed {
            bail!("the loudspeaker failed: {why}");
        }
        if waiting.sound.is_empty() {
            let cushion = (CUSHION.as_secs_f64() * f64::from(self.rate)) as usize;
            waiting.sound.extend(std::iter::repeat_n(0.0, cushion));
        }
        waiting.sound.extend(sound);
        let most = (WAITING_SOUND.as_secs_f64() * f64::from(self.rate)) as usize;
        let surplus = waiting.sound.len().saturating_sub(most);
        waiting.sound.drain(..surplus);
        Ok(())
    }

    /// How much waits to be played.
    pub fn waiting(&self) -> Duration {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        Duration::from_secs_f64(waiting.sound.len() as f64 / f64::from(self.rate))
    }

    /// Waits until there is room for more.
    ///
    /// # Errors
    /// When the loudspeaker stands still.
    pub async fn has_room(&self) -> anyhow::Result<()> {
        self.until_waiting(WAITING_SOUND / 2).await
    }

    /// Waits until all has been played.
    ///
    /// # Errors
    /// When the loudspeaker stands still.
    pub async fn played(&self) -> anyhow::Result<()> {
        self.until_waiting(Duration::ZERO).await?;
        // What the card itself has taken and not yet played.
        tokio::time::sleep(IN_THE_CARD).await;
        Ok(())
    }

    async fn until_waiting(&self, most: Duration) -> anyhow::Result<()> {
        let mut least = (self.waiting(), Instant::now());
        while least.0 > most {
            if least.1.elapsed() > STANDSTILL {
                bail!("the loudspeaker has played nothing for {STANDSTILL:?}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
            let waiting = self.waiting();
            if waiting < least.0 {
                least = (waiting, Instant::now());
            }
        }
        Ok(())
    }
}

fn speak<T>(
    device: &Device,
    config: StreamConfig,
    waiting: &Arc<Mutex<Waiting>>,
) -> anyhow::Result<Stream>
where
    T: SizedSample + FromSample<f32>,
{
    let channels = usize::from(config.channels.max(1));
    let (queue, state) = (Arc::clone(waiting), Arc::clone(waiting));
    let wanted = move |data: &mut [T], _: &_| {
        let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
        for frame in data.chunks_exact_mut(channels) {
            frame.fill(T::from_sample(queue.sound.pop_front().unwrap_or(0.0)));
        }
    };
    let failed = move |error: cpal::Error| {
        if is_final(&error) {
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            state.failed = Some(error.to_string());
        } else {
            tracing::debug!(%error, "the loudspeaker skipped");
        }
    };
    device
        .build_output_stream(config, wanted, failed, None)
        .context("the loudspeaker cannot be opened")
}

/// Whether nothing more is to be hoped of the card. Else it lost a little sound and goes on; one that does not is
/// noticed by its standing still.
fn is_final(error: &cpal::Error) -> bool {
    use cpal::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::DeviceNotAvailable
            | Kind::HostUnavailable
            | Kind::PermissionDenied
            | Kind::StreamInvalidated
    )
}

/// The device of that name, or an error that lists those that are there.
fn named(devices: impl Iterator<Item = Device>, name: &str) -> anyhow::Result<Device> {
    let mut names = Vec::new();
    for device in devices {
        let id = device.id().map(|id| id.to_string()).unwrap_or_default();
        let called = device
            .description()
            .map(|description| description.name().to_owned())
            .unwrap_or_default();
        if called == name || id == name || id.split_once(':').is_some_and(|(_, id)| id == name) {
            return Ok(device);
        }
        names.push(format!("{called:?} ({id})"));
    }
    bail!("there are: {}", names.join(", "))
}
