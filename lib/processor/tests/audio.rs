//! Audio from the bytes of a file to samples and log-mel frames, as other programs make them.

#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use mlxk_core::Result;
use mlxk_processor::audio::{
    AudioFormat, AudioStream, LogMel, Mel, MelOptions, Source, Vad, VadOptions, speech,
};
use serde_json::Value;

/// Rate of what models take, in Hz.
const RATE: u32 = 16_000;

fn data(name: &str) -> Vec<u8> {
    std::fs::read(Path::new("../../tests/data/audio").join(name)).unwrap()
}

fn expected() -> Value {
    serde_json::from_slice(&data("expected.json")).unwrap()
}

fn open(bytes: &[u8]) -> Result<AudioStream> {
    AudioStream::open(Source::Bytes(Arc::from(bytes)), AudioFormat::Sniffed, RATE)
}

/// All samples, and the error that ended them.
fn read(stream: Result<AudioStream>) -> (Vec<f32>, Option<String>) {
    let mut samples = Vec::new();
    let mut end = None;
    match stream {
        Ok(stream) => stream.for_each(|block| match block {
            Ok(block) => samples.extend(block),
            Err(error) => end = Some(error.to_string()),
        }),
        Err(error) => end = Some(error.to_string()),
    }
    (samples, end)
}

fn sound(bytes: &[u8]) -> Vec<f32> {
    let (samples, end) = read(open(bytes));
    assert_eq!(end, None);
    samples
}

fn refusal(bytes: &[u8]) -> String {
    let (samples, end) = read(open(bytes));
    assert_eq!(samples.len(), 0);
    end.unwrap()
}

/// Ratio of the signal to the difference, in dB.
fn ratio(truth: impl Iterator<Item = (f64, f32)>) -> f64 {
    let (mut signal, mut noise) = (0.0, 0.0);
    for (truth, sample) in truth {
        signal += truth * truth;
        noise += (truth - f64::from(sample)).powi(2);
    }
    10.0 * (signal / noise.max(1e-30)).log10()
}

/// Tones below 3.6 kHz, at a place in seconds.
fn tones(second: f64) -> f64 {
    let tone = |hertz: f64, phase: f64| (std::f64::consts::TAU * hertz * second + phase).sin();
    let gate = (std::f64::consts::PI * second).sin().powi(2);
    gate * (0.3 * tone(220.0, 0.1) + 0.2 * tone(1330.0, 1.0) + 0.1 * tone(3510.0, 2.0))
}

/// Ratio of samples at 16 kHz to the tones, in dB.
fn purity(samples: &[f32]) -> f64 {
    let at = |at: usize| tones(at as f64 / f64::from(RATE));
    ratio(samples.iter().enumerate().map(|(place, sample)| (at(place), *sample)))
}

/// A WAV file of samples of a format tag, of a size in bits, that are in `data`.
fn wav(tag: u16, bits: u16, channels: u16, rate: u32, data: &[u8]) -> Vec<u8> {
    let mut file = b"RIFF".to_vec();
    file.extend(((36 + data.len()) as u32).to_le_bytes());
    file.extend(b"WAVEfmt ");
    file.extend(16u32.to_le_bytes());
    let frame = channels * bits / 8;
    for (value, size) in [
        (u32::from(tag), 2),
        (channels.into(), 2),
        (rate, 4),
        (rate * u32::from(frame), 4),
        (frame.into(), 2),
        (bits.into(), 2),
    ] {
        file.extend(&value.to_le_bytes()[..size]);
    }
    file.extend(b"data");
    file.extend((data.len() as u32).to_le_bytes());
    file.extend(data);
    file
}

/// Two seconds of the tones as floats of 32 bits.
fn floats(rate: u32) -> Vec<u8> {
    let value = |at: u32| tones(f64::from(at) / f64::from(rate)) as f32;
    (0..2 * rate).flat_map(|at| value(at).to_le_bytes()).collect()
}

#[test]
fn files_of_all_kinds_hold_the_sound_that_was_put_in_at_its_time() {
    let expected = expected();
    let numbers = |key: &str| {
        expected["truth"][key].as_array().unwrap().iter().map(|value| value.as_f64().unwrap())
    };
    for (name, least) in [
        ("tones-16k.wav", 80.0),
        ("tones-48k.flac", 85.0),
        ("tones-8k-ulaw.wav", 35.0),
        ("tones-48k.mp3", 39.0),
        ("tones-48k.ogg", 37.0),
        ("tones-48k.opus", 30.5),
        ("tones-48k.webm", 33.0),
        ("tones-44k1.m4a", 55.0),
    ] {
        let samples = sound(&data(name));
        let sample = |at: f64| samples.get(at as usize).copied().unwrap_or(0.0);
        let ratio = ratio(numbers("value").zip(numbers("index").map(sample)));
        assert!(ratio > least, "{name}: {ratio} dB");
        let more = samples.len() - 59_200;
        assert!(more == 0 || more < 400 && name.ends_with("webm"), "{name}: {more} samples more");
    }
}

#[test]
fn a_pipe_gives_what_a_file_gives() {
    for name in ["tones-48k.mp3", "tones-48k.ogg", "tones-48k.webm", "tones-44k1.m4a"] {
        let bytes = data(name);
        let whole = sound(&bytes);
        let pipe = Source::Pipe(Box::new(std::io::Cursor::new(bytes).chain(std::io::empty())));
        let piped = AudioStream::open(pipe, AudioFormat::Sniffed, RATE).unwrap();
        let piped: Vec<f32> = piped.flat_map(|block| block.unwrap()).collect();
        assert!(piped == whole, "{name}: {} of {}", piped.len(), whole.len());
    }
}

#[test]
fn joined_files_are_heard_to_their_end() {
    let once = data("tones-48k.mp3");
    let twice = sound(&once.repeat(2)).len();
    // What pads the first file stays.
    assert!((118_400..120_000).contains(&twice), "{twice}");
    assert_eq!(sound(&data("tones-48k.ogg").repeat(2)).len(), 118_400);
}

#[test]
fn resampling_keeps_the_sound_and_its_place_at_every_rate() {
    for rate in [8_000, 11_025, 12_000, 22_050, 24_000, 32_000, 44_100, 44_101, 48_000, 96_000] {
        let samples = sound(&wav(3, 32, 1, rate, &floats(rate)));
        assert_eq!(samples.len(), 32_000, "{rate} Hz");
        let purity = purity(&samples);
        assert!(purity > 75.0, "{rate} Hz: {purity} dB");
    }
}

#[test]
fn tones_above_half_the_rate_vanish() {
    for hertz in [8_500.0, 10_000.0, 15_900.0, 21_000.0] {
        let value = |at: u32| {
            let angle = std::f64::consts::TAU * hertz * f64::from(at) / 44_100.0;
            // Swelling, for a sound that starts at once holds all frequencies.
            (angle.sin() * (f64::from(at) * std::f64::consts::PI / 88_200.0).sin().powi(2)) as f32
        };
        let bytes: Vec<u8> = (0..88_200).flat_map(|at| value(at).to_le_bytes()).collect();
        let samples = sound(&wav(3, 32, 1, 44_100, &bytes));
        let loudest = samples.iter().fold(0f32, |most, sample| most.max(sample.abs()));
        assert!(loudest < 1e-3, "{hertz} Hz: {loudest}");
    }
}

#[test]
fn channels_are_mixed_to_their_mean() {
    let frames = floats(RATE);
    let frame = |sample: &[u8]| [sample, &[0; 4][..], sample, sample].concat();
    let four: Vec<u8> = frames.chunks_exact(4).flat_map(frame).collect();
    let one = sound(&wav(3, 32, 1, RATE, &frames));
    let mixed = sound(&wav(3, 32, 4, RATE, &four));
    assert!(one.iter().zip(&mixed).all(|(one, mixed)| (one * 0.75 - mixed).abs() < 1e-6));
}

#[test]
fn log_mel_frames_are_those_of_whisper_and_nemo() {
    let expected = expected();
    let samples = sound(&data("tones-16k.wav"));
    for kind in ["whisper", "nemo"] {
        for bands in [80, 128] {
            let options = match kind {
                "nemo" => MelOptions::nemo(bands),
                _ => MelOptions::whisper(bands),
            };
            let mel = LogMel::new(&options).whole(&samples);
            assert_eq!(mel.values.len(), mel.frames * bands);
            let golden = &expected[kind][bands.to_string()];
            for (frame, values) in golden["frames"].as_object().unwrap() {
                let frame: usize = frame.parse().unwrap();
                let ours = &mel.values[frame * bands..][..bands];
                for (ours, value) in ours.iter().zip(values.as_array().unwrap()) {
                    let difference = (f64::from(*ours) - value.as_f64().unwrap()).abs();
                    // Quiet bands of NeMo's are noise of single precision.
                    let most = if kind == "nemo" { 2e-3 } else { 1e-4 };
                    assert!(difference < most, "{kind} {bands}: frame {frame}: {difference}");
                }
            }
            // Whisper's reference holds the first 30 seconds.
            let frames = golden["shape"][1].as_u64().unwrap() as usize;
            assert_eq!(mel.frames, if kind == "nemo" { frames } else { 3370 });
            let values = &mel.values[..frames * bands];
            let squares: f64 = values.iter().map(|value| f64::from(*value).powi(2)).sum();
            let error = squares / golden["sumsq"].as_f64().unwrap() - 1.0;
            assert!(error.abs() < 1e-5, "{kind} {bands}: {error}");
        }
    }
}

#[test]
fn frames_do_not_depend_on_how_samples_come() {
    let samples = sound(&data("tones-16k.wav"));
    for options in [MelOptions::whisper(80), MelOptions::nemo(80)] {
        let log_mel = LogMel::new(&options);
        for length in [0, 1, 2, 150, 201, 400, 1000, 16_000] {
            let whole = log_mel.whole(&samples[10_000..][..length]);
            for size in [1, 7, 160, 399, 5000] {
                let mut stream = log_mel.stream();
                let mut mel = Mel { bands: 80, ..Mel::default() };
                let parts = samples[10_000..][..length].chunks(size);
                let mut parts: Vec<Mel> = parts.map(|part| stream.push(part)).collect();
                parts.push(stream.finish());
                for part in parts {
                    mel.frames += part.frames;
                    mel.values.extend(part.values);
                }
                log_mel.normalize(&mut mel);
                assert!(mel == whole, "{length} samples by {size}");
            }
        }
    }
}

#[test]
fn raw_samples_are_read_as_they_are_described() {
    let raw = |form: &str, bytes: Vec<u8>| {
        let source = Source::Pipe(Box::new(std::io::Cursor::new(bytes)));
        let stream = AudioStream::open(source, form.parse().unwrap(), RATE).unwrap();
        stream.flat_map(|block| block.unwrap()).collect::<Vec<f32>>()
    };
    let whole = |at: u32| (tones(f64::from(at) / f64::from(RATE)) * 32768.0).round() as i16;
    let little = (0..32_000).flat_map(|at| whole(at).to_le_bytes()).collect();
    let big = (0..32_000).flat_map(|at| whole(at).to_be_bytes()).collect();
    assert!(purity(&raw("s16le:16000:1", little)) > 75.0);
    assert!(purity(&raw("s16be:16000", big)) > 75.0);
    assert!(purity(&raw("f32le:44100:1", floats(44_100))) > 75.0);
    let refused = |form: &str| form.parse::<AudioFormat>().unwrap_err().to_string();
    assert!(refused("s17:16000:1").contains("'s17' is not a form of samples; known are s16le"));
    assert!(refused("s16le").contains("has no sample rate"));
    assert!(refused("s16le:12:1").contains("12 Hz is not between 4000 and 768000 Hz"));
    assert!(refused("s16le:16000:0").contains("does not have 1 to 64 channels"));
    assert_eq!("mulaw:8000".parse::<AudioFormat>().unwrap().to_string(), "mulaw:8000:1");
}

#[test]
fn sizes_that_writers_to_pipes_leave_are_not_believed() {
    let file = wav(3, 32, 1, RATE, &floats(RATE));
    let whole = sound(&file);
    for (riff, data) in [(0, 0), (u32::MAX, u32::MAX), (0x7fff_ffff, 0x7fff_ffdb), (8, 128_000)] {
        let mut file = file.clone();
        file[4..8].copy_from_slice(&u32::to_le_bytes(riff));
        file[40..44].copy_from_slice(&u32::to_le_bytes(data));
        assert!(sound(&file) == whole, "sizes {riff} and {data}");
    }
}

#[test]
fn what_is_whole_of_a_cut_file_is_heard_before_the_error() {
    for name in [
        "tones-16k.wav",
        "tones-48k.flac",
        "tones-48k.mp3",
        "tones-48k.opus",
        "tones-48k.webm",
        "tones-44k1.m4a",
    ] {
        let whole = data(name);
        let (samples, end) = read(open(&whole[..whole.len() / 2]));
        let end = end.unwrap();
        assert!(end.contains("cut short"), "{name}: {end}");
        // The index of the M4A is at its end: a cut one has nothing that could be found. Pages of Ogg
        // are a second long.
        let least = if name.ends_with("m4a") { 0 } else { 15_000 };
        assert!(samples.len() >= least, "{name}: {}", samples.len());
    }
}

#[test]
fn what_is_no_audio_is_refused_in_one_line_by_its_name() {
    assert_eq!(refusal(b""), "audio: file is empty");
    assert!(refusal(b"# Title\nSome text\n").starts_with("audio: text is not supported; WAV, "));
    assert!(refusal(b"\x89PNG\r\n\x1a\n").starts_with("audio: PNG is not supported"));
    let mut state = 1u32;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    })
    .take(1 << 20)
    .collect();
    assert!(refusal(&noise).starts_with("audio: "), "{}", refusal(&noise));
    for wrong in [f32::NAN, f32::INFINITY, 1e20] {
        let mut samples = floats(RATE);
        samples[64_000..64_004].copy_from_slice(&wrong.to_le_bytes());
        let (before, end) = read(open(&wav(3, 32, 1, RATE, &samples)));
        assert!(before.len() <= 16_000);
        assert!(end.unwrap().contains("sample at 1.00 s is not a number"));
    }
    let slow = refusal(&wav(3, 32, 1, 100, &floats(100)));
    assert!(slow.contains("sample rate 100 Hz is not between"), "{slow}");
}

#[test]
fn speech_is_found_between_silences_of_any_length() {
    let note = sound(&data("speech.opus"));
    let pause = |seconds: usize| vec![0.0; seconds * RATE as usize];
    let audio = [pause(5), note.clone(), pause(36), note].concat();
    let parts = speech(&audio, &VadOptions::default());
    // The speaker begins 0.3 seconds after the start of the note, which takes 11.
    assert_eq!(parts.len(), 2, "{parts:?}");
    for (part, start) in parts.iter().zip([5.3, 52.3]) {
        assert!((part.start - start).abs() < 0.6, "{part:?}");
        assert!((part.end - start - 10.5).abs() < 1.0, "{part:?}");
    }
    let mut vad = Vad::new(&VadOptions::default());
    let mut streamed: Vec<_> = audio.chunks(1000).flat_map(|block| vad.push(block)).collect();
    streamed.extend(vad.finish());
    assert_eq!(streamed, parts);
    assert_eq!(speech(&pause(40), &VadOptions::default()), []);
    assert_eq!(speech(&[], &VadOptions::default()), []);
}
