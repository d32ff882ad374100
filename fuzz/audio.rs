//! Audio: the bytes of a file, from a file and from a pipe, to samples and log-mel frames.
#![no_main]

use std::io::Cursor;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use mlxk_processor::audio::{AudioFormat, AudioStream, LogMel, MelOptions, Source};

/// More samples are not transformed: a long file that takes long finds nothing.
const LONG: usize = 1 << 20;

static LOG_MEL: LazyLock<LogMel> =
    LazyLock::new(|| LogMel::new(&MelOptions { tail: 0, ..MelOptions::whisper(80) }));

fuzz_target!(|bytes: &[u8]| {
    for source in [Source::Bytes(bytes.into()), Source::Pipe(Box::new(Cursor::new(bytes.to_vec())))]
    {
        let Ok(stream) = AudioStream::open(source, AudioFormat::Sniffed, 16_000) else { continue };
        let mut mel = LOG_MEL.stream();
        let mut heard = 0;
        let mut frames = 0;
        for block in stream {
            let Ok(block) = block else { break };
            heard += block.len();
            let made = mel.push(&block);
            assert!(made.values.iter().all(|value| value.is_finite()));
            frames += made.frames;
            if heard > LONG {
                break;
            }
        }
        frames += mel.finish().frames;
        assert_eq!(frames, heard / 160);
    }
});
