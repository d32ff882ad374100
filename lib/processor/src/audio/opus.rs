//! Opus as a decoder of symphonia, which reads its containers only.
//!
//! Format: RFC 6716 (packets), RFC 7845 (identification header, pre-skip).

use opus_decoder::OpusDecoder;
use symphonia::core::audio::{
    AsGenericAudioBufferRef, AudioBuffer, AudioMut, AudioSpec, Channels, GenericAudioBufferRef,
};
use symphonia::core::codecs::CodecInfo;
use symphonia::core::codecs::audio::well_known::CODEC_ID_OPUS;
use symphonia::core::codecs::audio::{
    AudioCodecParameters, AudioDecoder, AudioDecoderOptions, FinalizeResult,
};
use symphonia::core::codecs::registry::{RegisterableAudioDecoder, SupportedAudioCodec};
use symphonia::core::errors::{Result, decode_error, unsupported_error};
use symphonia::core::packet::PacketRef;

/// Opus is decoded at this rate, in Hz, whatever the rate of what was encoded.
const RATE: u32 = 48_000;

/// The most frames that a packet can hold: 120 ms.
const MAX_FRAMES: usize = RATE as usize * 120 / 1000;

const CODECS: [SupportedAudioCodec; 1] = [SupportedAudioCodec {
    id: CODEC_ID_OPUS,
    info: CodecInfo { short_name: "opus", long_name: "Opus", profiles: &[] },
}];

/// Decoder of one logical stream of Opus, of one channel or two.
pub(super) struct Opus {
    parameters: AudioCodecParameters,
    decoder: OpusDecoder,
    spec: AudioSpec,
    /// What the last packet held.
    decoded: AudioBuffer<f32>,
    /// Frames at the start that are still to be dropped.
    skip: usize,
    /// Factor that the header asks samples to be multiplied by.
    gain: f32,
    interleaved: Vec<f32>,
}

/// What the identification header says (RFC 7845, section 5.1).
struct Head {
    channels: u8,
    skip: usize,
    /// Output gain in dB, of which 8 bits are behind the point.
    gain: i16,
}

impl Head {
    fn read(bytes: &[u8]) -> Option<Head> {
        let [_, _, _, _, _, _, _, _, version, channels, fields @ ..] = bytes else { return None };
        let [s0, s1, _, _, _, _, g0, g1, ..] = fields else { return None };
        // In MP4 the version is 0, numbers are in the order of MP4, and edits skip the start.
        let (skip, gain) = match version {
            0 => (0, i16::from_be_bytes([*g0, *g1])),
            _ => (u16::from_le_bytes([*s0, *s1]).into(), i16::from_le_bytes([*g0, *g1])),
        };
        Some(Head { channels: *channels, skip, gain })
    }
}

impl Opus {
    /// The decoder of a stream whose header is in `parameters`.
    fn new(parameters: &AudioCodecParameters) -> Result<Self> {
        let count = parameters.channels.as_ref().map_or(1, Channels::count);
        let simple = Head { channels: u8::try_from(count).unwrap_or(u8::MAX), skip: 0, gain: 0 };
        let head = parameters.extra_data.as_deref().and_then(Head::read).unwrap_or(simple);
        let channels = usize::from(head.channels);
        let Ok(decoder) = OpusDecoder::new(RATE, channels) else {
            return unsupported_error("Opus of more than two channels");
        };
        let spec = AudioSpec::new(RATE, Channels::Discrete(u16::from(head.channels)));
        Ok(Opus {
            parameters: parameters.clone(),
            decoder,
            decoded: AudioBuffer::new(spec.clone(), MAX_FRAMES),
            spec,
            skip: head.skip,
            gain: 10f32.powf(f32::from(head.gain) / (20.0 * 256.0)),
            interleaved: vec![0.0; MAX_FRAMES * channels],
        })
    }
}

impl AudioDecoder for Opus {
    fn codec_info(&self) -> &CodecInfo {
        &CODECS[0].info
    }

    fn reset(&mut self) {
        self.decoder.reset();
    }

    fn codec_params(&self) -> &AudioCodecParameters {
        &self.parameters
    }

    fn decode_ref(&mut self, packet: &PacketRef<'_>) -> Result<GenericAudioBufferRef<'_>> {
        self.decoded.clear();
        // An empty packet would ask for what hides the loss of one.
        if packet.data.is_empty() {
            return decode_error("opus: packet is empty");
        }
        let decoded = self.decoder.decode_float(packet.data, &mut self.interleaved, false);
        let Ok(frames) = decoded else { return decode_error("opus: packet is damaged") };
        let channels = self.spec.channels().count();
        let samples = &mut self.interleaved[..frames * channels];
        if self.gain != 1.0 {
            samples.iter_mut().for_each(|sample| *sample *= self.gain);
        }
        self.decoded.render_uninit(Some(frames));
        self.decoded.copy_from_slice_interleaved(&samples);
        let skipped = self.skip.min(frames);
        self.skip -= skipped;
        let end = usize::try_from(packet.trim_end.get()).unwrap_or(usize::MAX);
        self.decoded.trim(skipped, end.min(frames - skipped));
        Ok(self.decoded.as_generic_audio_buffer_ref())
    }

    fn finalize(&mut self) -> FinalizeResult {
        FinalizeResult::default()
    }

    fn last_decoded(&self) -> GenericAudioBufferRef<'_> {
        self.decoded.as_generic_audio_buffer_ref()
    }
}

impl RegisterableAudioDecoder for Opus {
    fn try_registry_new(
        parameters: &AudioCodecParameters,
        _: &AudioDecoderOptions,
    ) -> Result<Box<dyn AudioDecoder>> {
        Ok(Box::new(Opus::new(parameters)?))
    }

    fn supported_codecs() -> &'static [SupportedAudioCodec] {
        &CODECS
    }
}
