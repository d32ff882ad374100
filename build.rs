//! Lets the programs that run models find libmlx.so on Linux: beside the installed programs
//! (PREFIX/lib/mlxk), else where `make mlx` prepared it, as the tests do.

/// Programs that link MLX.
const RUNNERS: &[&str] = &["mlxk-convert", "mlxk-embed", "mlxk-run", "mlxk-serve"];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=MLXK_MLX_LIB");
    let linux = std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux");
    if !linux || std::env::var_os("CARGO_FEATURE_RUN").is_none() {
        return;
    }
    let Ok(prepared) = std::env::var("MLXK_MLX_LIB") else {
        println!("cargo::error=MLX is not prepared on this machine: run `make mlx` once");
        return;
    };
    for whole in ["tests", "benches"] {
        println!("cargo::rustc-link-arg-{whole}=-Wl,-rpath,{prepared}");
    }
    for program in RUNNERS {
        println!(
            "cargo::rustc-link-arg-bin={program}=-Wl,-rpath,$ORIGIN/../lib/mlxk/mlx/lib,-rpath,{prepared}"
        );
    }
}
