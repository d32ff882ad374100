//! Lets the tests of this crate find libmlx.so on Linux, where `make mlx` prepared it.

fn main() {
    println!("cargo::rerun-if-env-changed=MLXK_MLX_LIB");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("linux") {
        return;
    }
    match std::env::var("MLXK_MLX_LIB") {
        Ok(lib) => println!("cargo::rustc-link-arg=-Wl,-rpath,{lib}"),
        Err(_) => println!("cargo::error=MLX is not prepared on this machine: run `make mlx` once"),
    }
}
