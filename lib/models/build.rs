//! Lets the tests of this crate find libmlx.so on Linux, where `make mlx` prepared it.

fn main() {
    println!("cargo::rerun-if-env-changed=MLXK_MLX_LIB");
    if let Ok(lib) = std::env::var("MLXK_MLX_LIB") {
        println!("cargo::rustc-link-arg=-Wl,-rpath,{lib}");
    }
}
