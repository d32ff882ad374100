//! Lets the tests of this crate find libmlx.so on Linux, where `make mlx` prepared it.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=MLXK_MLX_LIB");
    // That MLX is not prepared is told by the crate of the engine.
    if let Ok(lib) = std::env::var("MLXK_MLX_LIB") {
        println!("cargo::rustc-link-arg=-Wl,-rpath,{lib}");
    }
}
