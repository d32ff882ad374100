//! Feature cache: features of pictures, for later prompts with the same pictures.

use mlxk_models::vision::Features;

/// Features of pictures by the hashes of their pixels, the last used last.
#[derive(Default)]
pub struct FeatureCache {
    pictures: Vec<([u8; 32], Features)>,
}

impl FeatureCache {
    /// Features of the picture with `hash`, if they are held.
    pub fn get(&mut self, hash: &[u8; 32]) -> Option<Features> {
        let place = self.pictures.iter().position(|(own, _)| own == hash)?;
        let picture = self.pictures.remove(place);
        let features = picture.1.clone();
        self.pictures.push(picture);
        Some(features)
    }

    /// Adds the features of a picture, and drops those of the oldest until all take `bytes` at most.
    pub fn put(&mut self, hash: [u8; 32], features: Features, bytes: u64) {
        self.pictures.push((hash, features));
        while self.bytes() > bytes {
            self.pictures.remove(0);
        }
    }

    /// Bytes of all features.
    pub fn bytes(&self) -> u64 {
        self.pictures.iter().map(|(_, features)| size(features)).sum()
    }
}

fn size(features: &Features) -> u64 {
    let arrays = std::iter::once(&features.rows).chain(&features.deep);
    arrays.map(|array| array.nbytes() as u64).sum()
}

#[cfg(test)]
mod tests {
    use mlx_rs::Array;

    use super::*;

    #[test]
    fn the_picture_that_was_used_longest_ago_goes_first() {
        let features = || Features {
            rows: Array::from_slice(&[0f32; 8], &[2, 4]),
            deep: vec![Array::from_slice(&[0f32; 8], &[2, 4])],
        };
        let mut cache = FeatureCache::default();
        cache.put([1; 32], features(), 128);
        cache.put([2; 32], features(), 128);
        assert_eq!(cache.bytes(), 128);
        assert!(cache.get(&[1; 32]).is_some());
        cache.put([3; 32], features(), 128);
        let held = [1u8, 2, 3].map(|hash| cache.get(&[hash; 32]).is_some());
        assert_eq!(held, [true, false, true]);
        cache.put([4; 32], features(), 10);
        assert_eq!(cache.bytes(), 0);
    }
}
