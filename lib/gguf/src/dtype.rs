//! Tensor types of GGUF: their numbers, names and block layouts.

/// Tensor type that this crate can read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, non_camel_case_types)] // spelled as GGUF spells them
pub enum Type {
    F32,
    F16,
    BF16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2_K,
    Q3_K,
    Q4_K,
    Q5_K,
    Q6_K,
    IQ4_NL,
    IQ4_XS,
    MXFP4,
    IQ2_XXS,
    IQ2_XS,
    IQ2_S,
    IQ3_XXS,
    IQ3_S,
    IQ1_S,
    IQ1_M,
    TQ1_0,
    TQ2_0,
}

/// Type, number in the file, name, weights per block, bytes per block.
type Row = (Type, u32, &'static str, usize, usize);

/// Layouts of the types, as in `ggml-common.h`.
const TYPES: [Row; 25] = [
    (Type::F32, 0, "F32", 1, 4),
    (Type::F16, 1, "F16", 1, 2),
    (Type::Q4_0, 2, "Q4_0", 32, 18),
    (Type::Q4_1, 3, "Q4_1", 32, 20),
    (Type::Q5_0, 6, "Q5_0", 32, 22),
    (Type::Q5_1, 7, "Q5_1", 32, 24),
    (Type::Q8_0, 8, "Q8_0", 32, 34),
    (Type::Q2_K, 10, "Q2_K", 256, 84),
    (Type::Q3_K, 11, "Q3_K", 256, 110),
    (Type::Q4_K, 12, "Q4_K", 256, 144),
    (Type::Q5_K, 13, "Q5_K", 256, 176),
    (Type::Q6_K, 14, "Q6_K", 256, 210),
    (Type::IQ4_NL, 20, "IQ4_NL", 32, 18),
    (Type::IQ4_XS, 23, "IQ4_XS", 256, 136),
    (Type::BF16, 30, "BF16", 1, 2),
    (Type::MXFP4, 39, "MXFP4", 32, 17),
    (Type::IQ2_XXS, 16, "IQ2_XXS", 256, 66),
    (Type::IQ2_XS, 17, "IQ2_XS", 256, 74),
    (Type::IQ2_S, 22, "IQ2_S", 256, 82),
    (Type::IQ3_XXS, 18, "IQ3_XXS", 256, 98),
    (Type::IQ3_S, 21, "IQ3_S", 256, 110),
    (Type::IQ1_S, 19, "IQ1_S", 256, 50),
    (Type::IQ1_M, 29, "IQ1_M", 256, 56),
    (Type::TQ1_0, 34, "TQ1_0", 256, 54),
    (Type::TQ2_0, 35, "TQ2_0", 256, 66),
];

/// Types that cannot be read, for messages that name them.
const UNSUPPORTED: [(u32, &str); 10] = [
    (9, "Q8_1"),
    (15, "Q8_K"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
    (40, "NVFP4"),
    (41, "Q1_0"),
    (42, "Q2_0"),
];

impl Type {
    /// Type with this number; the error is a phrase that names the type.
    pub(crate) fn from_number(number: u32) -> Result<Type, String> {
        if let Some(row) = TYPES.iter().find(|row| row.1 == number) {
            return Ok(row.0);
        }
        match UNSUPPORTED.iter().find(|(other, _)| *other == number) {
            Some((_, name)) => Err(format!("the type {name}, which cannot be imported")),
            None => Err(format!("the unknown type {number}")),
        }
    }

    /// Name in GGUF's spelling.
    pub fn name(self) -> &'static str {
        self.row().2
    }

    /// Weights per block.
    pub fn block(self) -> usize {
        self.row().3
    }

    /// Bytes per block.
    pub fn bytes(self) -> usize {
        self.row().4
    }

    /// True for floats, which have no blocks.
    pub fn is_float(self) -> bool {
        self.block() == 1
    }

    fn row(self) -> &'static Row {
        TYPES.iter().find(|row| row.0 == self).expect("every type has its row")
    }
}
