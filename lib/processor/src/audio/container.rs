//! What kind of file bytes of audio are, by their content, and the reader of its packets.

use mlxk_core::Result;
use symphonia::core::errors::Error as Fault;
use symphonia::core::formats::probe::{Hint, Probe, ProbeOptions};
use symphonia::core::formats::well_known::{FORMAT_ID_CAF, FORMAT_ID_MKV, FORMAT_ID_MP3};
use symphonia::core::formats::{FormatOptions, FormatReader, TrackType};
use symphonia::core::io::MediaSourceStream;
use symphonia::core::meta::MetadataOptions;
use symphonia::default::register_enabled_formats;

use super::error::{explain, failed, invalid};
use super::input::Input;
use super::{mp4, wav};

/// What is read, for messages.
const READ: &str = "WAV, AIFF, CAF, FLAC, MP3, M4A, Ogg and WebM are read";

/// A file is named by as many of its first bytes.
const HEAD: usize = 4096;

/// Bytes before the first frame of an MP3 that may be something else.
const MAX_JUNK: u32 = 64 << 10;

/// First bytes of files that are not read, each with the name of its kind.
const OTHERS: [(&[u8], &str); 20] = [
    (b"\x89PNG", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"GIF8", "GIF"),
    (b"%PDF", "PDF"),
    (b"PK\x03\x04", "ZIP"),
    (b"\x1f\x8b", "gzip"),
    (b"\x7fELF", "ELF"),
    (b"GGUF", "GGUF"),
    (b"#!AMR", "AMR"),
    (b".snd", "Sun audio (AU)"),
    (b"riff\x2e\x91\xcf\x11", "Wave64"),
    (b"\x0b\x77", "AC-3"),
    (b"TTA", "True Audio"),
    (b"MThd", "MIDI"),
    (b"wvpk", "WavPack"),
    (b"MAC ", "Monkey's Audio"),
    (b"DSD ", "DSD"),
    (b"FLV", "FLV"),
    (b"\x30\x26\xb2\x75", "WMA"),
    (b"\x00\x00\x01\xba", "MPEG-PS"),
];

/// First bytes of files whose readers look for their end, and fail if it is not there.
const SEQUENTIAL: [&[u8]; 2] = [b"\x1a\x45\xdf\xa3", b"FORM"];

/// An opened container.
pub(super) struct Container {
    /// Reader of its packets.
    pub reader: Box<dyn FormatReader>,
    /// The parts of tracks that are heard, if that is known.
    pub edits: Vec<(u32, mp4::Edit)>,
    /// How the audio ends.
    pub end: wav::End,
}

/// The container that `input` is.
///
/// Fails with [`mlxk_core::Kind::Validation`] if the bytes are none that is read, or are damaged at their
/// start.
pub(super) fn open(mut input: Input) -> Result<Container> {
    input.fill(HEAD).map_err(failed)?;
    refuse(&input.head)?;
    let mut edits = Vec::new();
    let mut end = wav::End::default();
    if wav::is_wav(&input.head) {
        end = wav::mend(&mut input).map_err(failed)?;
    } else if mp4::is_mp4(&input.head) {
        edits = mp4::edits(&mut input)?;
    } else if input.head.starts_with(b"caff") {
        input.keep()?;
    } else {
        input.sequential = SEQUENTIAL.iter().any(|start| input.head.starts_with(start));
    }
    let stream = MediaSourceStream::new(Box::new(input), Default::default());
    let reader = probe()
        .probe(&Hint::new(), stream, FormatOptions::default(), MetadataOptions::default())
        .map_err(|fault| match fault {
            Fault::Unsupported(what) if what.contains("no suitable format reader") => {
                invalid(format!("file is not audio of a known kind; {READ}"))
            }
            fault => explain(fault),
        })?;
    match reader.format_info().format {
        FORMAT_ID_CAF | FORMAT_ID_MP3 => edits = priming(&*reader),
        // What is recorded live has no end that could be known before.
        FORMAT_ID_MKV => end.open = true,
        _ => {}
    }
    Ok(Container { reader, edits, end })
}

/// Fails if a file that begins with `head` is known not to be read.
fn refuse(head: &[u8]) -> Result<()> {
    let other = OTHERS.iter().find(|(start, _)| head.starts_with(start)).map(|(_, name)| *name);
    let name = match other {
        Some(name) => name,
        None if head.is_empty() => return Err(invalid("file is empty")),
        None if head.starts_with(b"RIFF") && head.get(8..12) == Some(b"AVI ") => "AVI",
        None if head.get(..188 * 2).is_some_and(|head| head[0] == 0x47 && head[188] == 0x47) => {
            "MPEG-TS"
        }
        None if text(head) => "text",
        None => return Ok(()),
    };
    Err(invalid(format!("{name} is not supported; {READ}")))
}

/// Whether `head` is of a text.
fn text(head: &[u8]) -> bool {
    let text = match std::str::from_utf8(head) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(&head[..error.valid_up_to()]).unwrap_or_default()
        }
        Err(_) => return false,
    };
    !text.chars().any(|c| c.is_control() && !c.is_whitespace())
}

/// Frames at the start and the end of tracks that only prime decoders.
fn priming(reader: &dyn FormatReader) -> Vec<(u32, mp4::Edit)> {
    let tracks = reader.tracks().iter().filter_map(|track| {
        let rate = f64::from(track.codec_params.as_ref()?.audio()?.sample_rate?);
        let length = track.num_frames.map(|frames| frames as f64 / rate);
        Some((track.id, mp4::Edit { start: f64::from(track.delay?) / rate, length, firm: false }))
    });
    tracks.collect()
}

/// The readers of all containers; they look at the content only.
fn probe() -> Probe {
    let options = ProbeOptions { max_probe_depth: MAX_JUNK, ..ProbeOptions::default() };
    let mut probe = Probe::new_with_options(&options);
    register_enabled_formats(&mut probe);
    probe
}

/// Seconds of audio that `container` promises; none if it promises nothing that could be trusted.
pub(super) fn promised(container: &Container) -> Option<f64> {
    let reader = &*container.reader;
    let track = reader.default_track(TrackType::Audio)?;
    let format = reader.format_info().format;
    if format == FORMAT_ID_MKV && reader.tracks().len() == 1 {
        let info = reader.media_info();
        return Some(info.time_base?.calc_duration(info.duration?)?.as_secs_f64());
    }
    // The duration of an MP3 without a header of its encoder is guessed.
    if container.end.cut || format == FORMAT_ID_MP3 && track.delay.is_none() {
        return None;
    }
    let rate = f64::from(track.codec_params.as_ref()?.audio()?.sample_rate?);
    track.num_frames.filter(|frames| *frames > 0).map(|frames| frames as f64 / rate)
}
