//! Triangular filters that gather a power spectrum into mel bands.
//!
//! Formulas: Slaney's Auditory Toolbox (1998) and the HTK Book, as librosa's `filters.mel` has them.

/// How frequencies are laid out on the mel scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MelScale {
    /// Linear below 1000 Hz, logarithmic above.
    Slaney,
    /// Logarithmic: 2595 log10(1 + f / 700).
    Htk,
}

/// Weights of the bins of one band; bins that are left out have none.
pub(super) struct Filter {
    /// The first bin.
    pub first: usize,
    /// Weights from the first bin on.
    pub weights: Vec<f32>,
}

/// Frequency below which Slaney's scale is linear, in Hz; 3 mels are 200 Hz there.
const LINEAR: f64 = 1000.0;

/// Mels at `LINEAR`, and mels above it for each factor of 6.4.
const LINEAR_MELS: f64 = 15.0;
const LOG_MELS: f64 = 27.0;

impl MelScale {
    fn mels(self, hertz: f64) -> f64 {
        match self {
            MelScale::Htk => 2595.0 * (1.0 + hertz / 700.0).log10(),
            MelScale::Slaney if hertz < LINEAR => hertz * 3.0 / 200.0,
            MelScale::Slaney => LINEAR_MELS + (hertz / LINEAR).ln() * LOG_MELS / 6.4f64.ln(),
        }
    }

    fn hertz(self, mels: f64) -> f64 {
        match self {
            MelScale::Htk => 700.0 * (10f64.powf(mels / 2595.0) - 1.0),
            MelScale::Slaney if mels < LINEAR_MELS => mels * 200.0 / 3.0,
            MelScale::Slaney => LINEAR * ((mels - LINEAR_MELS) * 6.4f64.ln() / LOG_MELS).exp(),
        }
    }
}

/// The filters of `bands` bands between `low` and `high` Hz, for a transform of `size` samples at
/// `rate` Hz; of equal area if `norm` is set (Slaney), else of equal height.
pub(super) fn filters(
    scale: MelScale,
    norm: bool,
    bands: usize,
    (low, high): (f32, f32),
    size: usize,
    rate: u32,
) -> Vec<Filter> {
    let (low, high) = (scale.mels(low.into()), scale.mels(high.into()));
    let step = (high - low) / (bands + 1) as f64;
    let edge = |at: usize| scale.hertz(low + step * at as f64);
    let bin = f64::from(rate) / size as f64;
    let filter = |band: usize| {
        let (left, middle, right) = (edge(band), edge(band + 1), edge(band + 2));
        let height = if norm { 2.0 / (right - left) } else { 1.0 };
        let weight = |at: usize| {
            let hertz = at as f64 * bin;
            let slopes = ((hertz - left) / (middle - left)).min((right - hertz) / (right - middle));
            (slopes.max(0.0) * height) as f32
        };
        let first = (left / bin).ceil().max(0.0) as usize;
        let last = ((right / bin).floor() as usize).min(size / 2);
        Filter { first, weights: (first..last + 1).map(weight).collect() }
    };
    (0..bands).map(filter).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_those_of_librosa() {
        // librosa 0.11: filters.mel(sr=16000, n_fft=400, n_mels=80)[[0, 40]].
        let slaney = filters(MelScale::Slaney, true, 80, (0.0, 8000.0), 400, 16_000);
        let sum = |filter: &Filter| filter.weights.iter().sum::<f32>();
        assert_eq!(slaney[0].first, 0);
        assert!((slaney[0].weights[1] - 0.024_862_6).abs() < 1e-6, "{:?}", slaney[0].weights);
        assert!(slaney.iter().all(|filter| (sum(filter) - 0.025).abs() < 0.01));
        let htk = filters(MelScale::Htk, false, 40, (20.0, 8000.0), 512, 16_000);
        assert!(htk.iter().all(|filter| filter.weights.iter().all(|w| (0.0..=1.0).contains(w))));
    }
}
