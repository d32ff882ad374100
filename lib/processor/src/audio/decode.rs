//! Packets of a container, or raw samples, to blocks of mono samples at their own rate.

use std::io::{ErrorKind, Read};
use std::sync::LazyLock;

use mlxk_core::Result;
use symphonia::core::audio::Channels;
use symphonia::core::codecs::audio::well_known::CODEC_ID_MP3;
use symphonia::core::codecs::audio::{AudioCodecParameters, AudioDecoder, AudioDecoderOptions};
use symphonia::core::codecs::registry::CodecRegistry;
use symphonia::core::errors::{Error as Fault, Result as Outcome};
use symphonia::core::formats::{FormatReader, TrackType};
use symphonia::core::packet::{Packet, PacketBuilder};
use symphonia::core::units::{Duration, Timestamp};
use symphonia::default::register_enabled_codecs;

use super::container::{self, Container};
use super::error::{explain, invalid};
use super::format::{RawSample, check_rate};
use super::input::Input;
use super::mp4::Edit;
use super::opus::Opus;
use super::wav::End;

/// Samples beyond this are no sound: their power does not fit a float.
const LOUDEST: f32 = 1e9;

/// The most samples that pad the last packet: two packets of MP3 or AAC, with a margin.
const MAX_PADDING: usize = 6000;

/// Seconds by which a file may be shorter than its header says.
const SLACK: f64 = 0.1;

static CODECS: LazyLock<CodecRegistry> = LazyLock::new(|| {
    let mut registry = CodecRegistry::new();
    register_enabled_codecs(&mut registry);
    registry.register_audio_decoder::<Opus>();
    registry
});

/// A block of mono samples.
pub(super) struct Block {
    /// Sample rate, in Hz.
    pub rate: u32,
    /// Mean of the channels; empty if the packet held nothing that is heard.
    pub samples: Vec<f32>,
}

/// Decoder of one track.
pub(super) struct Track {
    packets: Packets,
    /// Number of the track.
    track: u32,
    decoder: Box<dyn AudioDecoder>,
    /// The part that is heard, unless the decoder knows it.
    edit: Option<Edit>,
    /// Seconds that the header promises.
    promised: Option<f64>,
    /// How the audio ends.
    end: End,
    /// Rate of the last block, in Hz.
    rate: u32,
    /// Seconds that were decoded, before the edit.
    decoded: f64,
    /// Packets that could not be decoded, and the time of the first of them.
    damage: Option<(usize, f64)>,
    /// Why the last of them could not be decoded.
    fault: &'static str,
    /// Samples after the end of the part that is heard, which only pad the last packet unless more
    /// follow.
    padding: Vec<f32>,
    interleaved: Vec<f32>,
}

/// Where packets come from.
enum Packets {
    Container(Box<dyn FormatReader>),
    Raw { input: Input, frame: usize, rate: u32 },
}

impl Track {
    /// The first track of audio in `input`.
    ///
    /// Fails with [`mlxk_core::Kind::Validation`] if there is none that can be decoded.
    pub fn open(input: Input) -> Result<Self> {
        let opened = container::open(input)?;
        let promised = container::promised(&opened);
        let Container { reader, edits, end } = opened;
        let (track, decoder) = choose(&*reader)?;
        let edit = edits.iter().find(|(number, _)| *number == track).map(|(_, edit)| *edit);
        Ok(Track::new(Packets::Container(reader), track, decoder, edit, promised, end))
    }

    /// Samples without a header.
    pub fn raw(input: Input, sample: RawSample, rate: u32, channels: u16) -> Result<Self> {
        let mut parameters = AudioCodecParameters::new();
        parameters
            .for_codec(sample.codec())
            .with_sample_rate(rate)
            .with_channels(Channels::Discrete(channels))
            .with_max_frames_per_packet(u64::from(rate));
        let decoder = CODECS
            .make_audio_decoder(&parameters, &AudioDecoderOptions::default())
            .map_err(explain)?;
        let packets = Packets::Raw { input, frame: sample.bytes() * usize::from(channels), rate };
        Ok(Track::new(packets, 0, decoder, None, None, End::default()))
    }

    fn new(
        packets: Packets,
        track: u32,
        decoder: Box<dyn AudioDecoder>,
        edit: Option<Edit>,
        promised: Option<f64>,
        end: End,
    ) -> Self {
        Track {
            packets,
            track,
            decoder,
            edit,
            promised,
            end,
            rate: 0,
            decoded: 0.0,
            damage: None,
            fault: "",
            padding: Vec::new(),
            interleaved: Vec::new(),
        }
    }

    /// Seconds of the track, if the header says so.
    pub fn duration(&self) -> Option<f64> {
        let edited = self.edit.and_then(|edit| {
            edit.length.or_else(|| self.promised.map(|seconds| (seconds - edit.start).max(0.0)))
        });
        edited.or(self.promised)
    }

    /// Number of packets that could not be decoded, and the time of the first of them in seconds.
    pub fn damage(&self) -> Option<(usize, f64)> {
        self.damage
    }

    /// The next block; none at the end.
    ///
    /// Fails if the file breaks off, or holds samples that are not numbers. Packets that cannot be
    /// decoded become silence, unless none of the file can be.
    pub fn next(&mut self) -> Result<Option<Block>> {
        match self.packets.next(self.track) {
            Ok(Some(packet)) => self.decode(&packet).map(Some),
            Ok(None) => self.end().map(|()| None),
            Err(Fault::ResetRequired) => {
                let Packets::Container(reader) = &self.packets else { return Ok(None) };
                (self.track, self.decoder) = choose(&**reader)?;
                Ok(Some(Block { rate: self.rate.max(1), samples: Vec::new() }))
            }
            Err(Fault::IoError(error))
                if self.end.open && error.kind() == ErrorKind::UnexpectedEof =>
            {
                self.end().map(|()| None)
            }
            Err(fault) => {
                let mut error = explain(fault);
                let end = time(self.decoded);
                error.message = format!("audio breaks off at {end}: {}", error.message);
                Err(error)
            }
        }
    }

    /// Fails if the track ended too early, or if nothing of it could be decoded.
    fn end(&mut self) -> Result<()> {
        if self.rate == 0 && self.damage.is_some() {
            return Err(invalid(format!("data is damaged: {}", self.fault)));
        }
        let short = self.promised.is_some_and(|promised| self.decoded + SLACK < promised);
        if self.end.cut || short {
            let end = time(self.decoded);
            return Err(invalid(match self.promised {
                Some(promised) => {
                    format!("file is cut short: audio ends at {end} of {}", time(promised))
                }
                None => format!("file is cut short: audio ends at {end}"),
            }));
        }
        Ok(())
    }

    /// The samples of a packet.
    fn decode(&mut self, packet: &Packet) -> Result<Block> {
        let silent = match self.decoder.decode(packet) {
            Ok(decoded) => {
                let rate = decoded.spec().rate();
                let channels = decoded.spec().channels().count().max(1);
                decoded.copy_to_vec_interleaved(&mut self.interleaved);
                check_rate(rate).map_err(|error| error.about("audio"))?;
                self.rate = rate;
                return self.block(channels);
            }
            Err(Fault::DecodeError(fault)) => fault,
            Err(Fault::IoError(_)) => "packet is cut short",
            Err(fault) => return Err(explain(fault)),
        };
        self.fault = silent;
        let (count, first) = self.damage.unwrap_or((0, self.decoded));
        self.damage = Some((count + 1, first));
        // Silence keeps the times of what follows; a decoder that has not begun has no rate.
        let frames = if self.rate == 0 { 0 } else { packet.dur.get().min(u64::from(self.rate)) };
        self.interleaved.clear();
        self.interleaved.resize(frames as usize, 0.0);
        self.block(1)
    }

    /// The mean of `channels` interleaved channels, as far as it is heard.
    fn block(&mut self, channels: usize) -> Result<Block> {
        let scale = 1.0 / channels as f32;
        let frames = self.interleaved.chunks_exact(channels);
        let mut samples: Vec<f32> = frames.map(|frame| frame.iter().sum::<f32>() * scale).collect();
        if let Some(at) =
            samples.iter().position(|sample| sample.is_nan() || sample.abs() > LOUDEST)
        {
            let place = time(self.decoded + at as f64 / f64::from(self.rate));
            return Err(invalid(format!(
                "sample at {place} is not a number, or beyond {LOUDEST:e}"
            )));
        }
        let rate = f64::from(self.rate.max(1));
        let start = self.decoded;
        self.decoded += samples.len() as f64 / rate;
        self.trim(&mut samples, start);
        Ok(Block { rate: self.rate.max(1), samples })
    }
}

impl Track {
    /// Cuts a block that begins at `start`, in seconds, down to the part that is heard.
    fn trim(&mut self, samples: &mut Vec<f32>, start: f64) {
        let Some(edit) = &mut self.edit else { return };
        let rate = f64::from(self.rate);
        let frame = |seconds: f64| ((seconds - start) * rate).round().max(0.0) as usize;
        if let Some(length) = edit.length {
            let end = frame(edit.start + length).min(samples.len());
            let rest = samples.drain(end..);
            if !edit.firm {
                self.padding.extend(rest);
            }
        }
        if self.padding.len() > MAX_PADDING {
            // Files were joined: the header is of the first one.
            edit.length = None;
            samples.append(&mut self.padding);
        }
        samples.drain(..frame(edit.start).min(samples.len()));
    }
}

impl Packets {
    /// The next packet of a track.
    fn next(&mut self, track: u32) -> Outcome<Option<Packet>> {
        match self {
            Packets::Container(reader) => {
                while let Some(packet) = reader.next_packet()? {
                    if packet.track_id == track {
                        return Ok(Some(packet));
                    }
                }
                Ok(None)
            }
            Packets::Raw { input, frame, rate } => {
                // A tenth of a second: what is recorded live arrives soon.
                let mut bytes = Vec::new();
                input.take((*frame * (*rate as usize / 10)) as u64).read_to_end(&mut bytes)?;
                let frames = bytes.len() / *frame;
                bytes.truncate(frames * *frame);
                let packet = PacketBuilder::new()
                    .track_id(0)
                    .pts(Timestamp::ZERO)
                    .dur(Duration::from(frames as u64))
                    .data(bytes)
                    .build();
                Ok((frames > 0).then_some(packet))
            }
        }
    }
}

/// The track of audio that is read, and its decoder.
fn choose(reader: &dyn FormatReader) -> Result<(u32, Box<dyn AudioDecoder>)> {
    let track = reader.default_track(TrackType::Audio);
    let track = track.ok_or_else(|| invalid("file has no track of audio that is supported"))?;
    let parameters = track.codec_params.as_ref().and_then(|parameters| parameters.audio());
    let parameters = parameters.ok_or_else(|| invalid("track of audio does not name its codec"))?;
    // The end that a header of MP3 gives is that of the first of several joined files, or guessed.
    let gapless = parameters.codec != CODEC_ID_MP3;
    let options = AudioDecoderOptions::default().gapless(gapless);
    let decoder = CODECS.make_audio_decoder(parameters, &options);
    decoder.map(|decoder| (track.id, decoder)).map_err(explain)
}

/// A time in seconds, as it is said in messages.
pub(super) fn time(seconds: f64) -> String {
    format!("{seconds:.2} s")
}
