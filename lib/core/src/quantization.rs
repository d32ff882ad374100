//! The quantization modes of MLX: the only list of them, which the engine follows.

/// Values of `quant_method` in `config.json` whose weights are in one of the modes already.
pub const EQUIVALENT: [&str; 2] = ["mxfp4", "mxfp8"];

/// Values of `quant_method` in `config.json` whose weights are converted to one of the modes.
pub const CONVERTIBLE: [&str; 4] = ["awq", "gptq", "compressed-tensors", "fp8"];

/// The encoding of a group of weights by codes and scales.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Unsigned integers with a scale and a bias for each group.
    Affine,
    /// Floats of 4 bits with a power of two for each group (OCP Microscaling).
    Mxfp4,
    /// Floats of 4 bits with a float of 8 bits for each group (NVIDIA).
    Nvfp4,
    /// Floats of 8 bits with a power of two for each group (OCP Microscaling).
    Mxfp8,
}

/// The quantization of a matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuantSpec {
    /// The encoding of the weights.
    pub mode: Mode,
    /// Bits per quantized weight.
    pub bits: usize,
    /// Number of weights that share a scale.
    pub group_size: usize,
}

impl Mode {
    /// Every mode.
    pub const ALL: [Mode; 4] = [Mode::Affine, Mode::Mxfp4, Mode::Nvfp4, Mode::Mxfp8];

    /// The value of `mode` in `config.json`.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Affine => "affine",
            Mode::Mxfp4 => "mxfp4",
            Mode::Nvfp4 => "nvfp4",
            Mode::Mxfp8 => "mxfp8",
        }
    }

    /// The mode called `name` in `config.json`.
    pub fn find(name: &str) -> Option<Mode> {
        Mode::ALL.into_iter().find(|mode| mode.name() == name)
    }

    /// The supported pairs of bits and group size.
    pub fn supported(self) -> impl Iterator<Item = (usize, usize)> {
        let (bits, groups): (&[usize], &[usize]) = match self {
            Mode::Affine => (&[2, 3, 4, 5, 6, 8], &[32, 64, 128]),
            Mode::Mxfp4 => (&[4], &[32]),
            Mode::Nvfp4 => (&[4], &[16]),
            Mode::Mxfp8 => (&[8], &[32]),
        };
        bits.iter().flat_map(move |&bits| groups.iter().map(move |&group| (bits, group)))
    }
}
