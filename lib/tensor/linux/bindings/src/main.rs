//! Writes the Rust declarations of mlx-c, as the build script of mlx-sys does on macOS:
//! `mlxc-bindings MLX_C_DIR OUTPUT [CLANG_ARGUMENT...]`.

use std::fs;
use std::error::Error;
use std::path::{Path, PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(source), Some(output)) = (args.next(), args.next()) else {
        return Err("usage: mlxc-bindings MLX_C_DIR OUTPUT [CLANG_ARGUMENT...]".into());
    };
    let mut builder = bindgen::Builder::default()
        .rust_target("1.73.0".parse()?)
        .clang_arg(format!("-I{source}"))
        .clang_args(args)
        .blocklist_function("malloc")
        .blocklist_function("realloc");
    for header in headers(&Path::new(&source).join("mlx/c"))? {
        builder = builder.header(header.display().to_string());
    }
    fs::write(output, signed(&builder.generate()?.to_string()))?;
    Ok(())
}

/// mlx-rs 0.33 takes the `char` of one function to be signed, which it is not on Linux on ARM.
fn signed(bindings: &str) -> String {
    const FUNCTION: &str = "pub fn mlx_pad(";
    match bindings.split_once(FUNCTION) {
        Some((before, after)) => {
            let after = after.replacen("*const ::std::os::raw::c_char", "*const i8", 1);
            format!("{before}{FUNCTION}{after}")
        }
        None => bindings.to_owned(),
    }
}

fn headers(dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    let paths = fs::read_dir(dir)?.map(|entry| Ok(entry?.path()));
    let mut headers = paths.collect::<std::io::Result<Vec<_>>>()?;
    headers.retain(|path| path.extension().is_some_and(|extension| extension == "h"));
    headers.sort();
    Ok(headers)
}
