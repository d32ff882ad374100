//! The ways in which MLX packs quantised weights: the one list, which the engine follows.

/// Other tools' names of forms that are the same; a `quant_method` of `config.json`.
pub const SAME: [&str; 2] = ["mxfp4", "mxfp8"];

/// Other tools' forms that are brought into one of these; each a `quant_method` too.
pub const FOREIGN: [&str; 4] = ["awq", "gptq", "compressed-tensors", "fp8"];

/// What the codes and scales of a quantised matrix stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// Unsigned integers with a scale and a bias for each group.
    Affine,
    /// Floats of 4 bits with a power of two for each group (OCP Microscaling).
    Mxfp4,
    /// Floats of 4 bits with a float of 8 bits for each group (NVIDIA).
    Nvfp4,
    /// Floats of 8 bits with a power of two for each group (OCP Microscaling).
    Mxfp8,
}

/// How the weights of a matrix are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    /// What codes and scales stand for.
    pub packing: Packing,
    /// Of a code.
    pub bits: usize,
    /// Weights that share a scale.
    pub group_size: usize,
}

impl Packing {
    /// All of them.
    pub const ALL: [Packing; 4] = [Packing::Affine, Packing::Mxfp4, Packing::Nvfp4, Packing::Mxfp8];

    /// The `mode` of `config.json`.
    pub fn name(self) -> &'static str {
        match self {
            Packing::Affine => "affine",
            Packing::Mxfp4 => "mxfp4",
            Packing::Nvfp4 => "nvfp4",
            Packing::Mxfp8 => "mxfp8",
        }
    }

    /// The packing of a `mode`.
    pub fn find(mode: &str) -> Option<Packing> {
        Packing::ALL.into_iter().find(|packing| packing.name() == mode)
    }

    /// The bits of a weight and the weights of a group that it can have.
    pub fn forms(self) -> impl Iterator<Item = (usize, usize)> {
        let (bits, groups): (&[usize], &[usize]) = match self {
            Packing::Affine => (&[2, 3, 4, 5, 6, 8], &[32, 64, 128]),
            Packing::Mxfp4 => (&[4], &[32]),
            Packing::Nvfp4 => (&[4], &[16]),
            Packing::Mxfp8 => (&[8], &[32]),
        };
        bits.iter().flat_map(move |&bits| groups.iter().map(move |&group| (bits, group)))
    }
}
