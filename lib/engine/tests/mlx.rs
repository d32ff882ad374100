//! MLX is linked, is found at run time, and calculates.
#![allow(clippy::unwrap_used)] // a test fails by panicking

use mlx_rs::Array;

#[test]
fn multiplies_matrices() {
    let a = Array::from_slice(&[1.0f32, 2.0, 3.0, 4.0], &[2, 2]);
    let product = a.matmul(&a).unwrap();
    assert_eq!(product.as_slice::<f32>(), &[7.0, 10.0, 15.0, 22.0]);
}
