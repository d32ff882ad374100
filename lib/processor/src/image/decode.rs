//! Bytes of a picture file to RGB, as Pillow opens a file, turns it by its EXIF orientation and
//! converts it to "RGB": alpha is dropped, not blended, and no colour profile is applied.
//!
//! The bytes are not trusted: their format is read from their content, and the size that their
//! header states is checked before anything is decoded.

use std::error::Error as _;
use std::io::{Cursor, ErrorKind};

use image::error::ImageError;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};
use mlxk_core::{Error, Kind, Result};

use super::rgb::{Rgb, Size};

/// The largest picture that is decoded, in pixels: 256 MiB of RGB. Pillow warns from here on.
pub const MAX_PIXELS: usize = (256 << 20) / 3;

/// Maximum memory of a decoder, in bytes.
const MAX_MEMORY: u64 = 512 << 20;

/// The picture in `bytes`: the first frame of a PNG, JPEG, WebP, GIF or BMP file.
///
/// Fails with [`Kind::Validation`] if the bytes are in another format, damaged or cut short, or if
/// the picture is larger than [`MAX_PIXELS`].
pub fn decode(bytes: &[u8]) -> Result<Rgb> {
    let format = format(bytes)?;
    if !complete(format, bytes) {
        return Err(invalid(format!("{} data is cut short", name(format))));
    }
    let damaged = |error| explain(format, error);
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut limits = Limits::default();
    limits.max_alloc = Some(MAX_MEMORY);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(damaged)?;
    let (width, height) = decoder.dimensions();
    check(width, height, decoder.total_bytes())?;
    // Orientation that cannot be read is none, as for Pillow.
    let orientation = decoder.orientation().ok();
    let mut picture = DynamicImage::from_decoder(decoder).map_err(damaged)?;
    if let Some(orientation) = orientation {
        picture.apply_orientation(orientation);
    }
    let size = Size { width: picture.width() as usize, height: picture.height() as usize };
    Ok(Rgb { size, pixels: rgb(picture)? })
}

/// The image format, detected from the content.
fn format(bytes: &[u8]) -> Result<ImageFormat> {
    const READ: &str = "PNG, JPEG, WebP, GIF and BMP are read";
    let format = image::guess_format(bytes).ok();
    let other = match format {
        Some(format) if format.reading_enabled() => return Ok(format),
        _ if bytes.is_empty() => return Err(invalid("file is empty")),
        _ if matches!(bytes.get(4..11), Some(b"ftyphei" | b"ftypmif")) => "HEIC".to_owned(),
        Some(format) => name(format),
        None => return Err(invalid(format!("not a picture; {READ}"))),
    };
    Err(invalid(format!("{other} is not supported; {READ}")))
}

/// Fails if the size in the header is zero, or larger than the limits allow.
fn check(width: u32, height: u32, bytes: u64) -> Result<()> {
    let pixels = u64::from(width) * u64::from(height);
    if pixels == 0 {
        return Err(invalid("picture has no pixels"));
    }
    if pixels > MAX_PIXELS as u64 || bytes > MAX_MEMORY {
        let message = format!(
            "picture of {width} x {height} pixels is too large; {} million pixels are the limit",
            MAX_PIXELS / 1_000_000
        );
        return Err(invalid(message));
    }
    Ok(())
}

/// True if the data is not truncated, as far as that is detectable without decoding.
fn complete(format: ImageFormat, bytes: &[u8]) -> bool {
    match (format, bytes) {
        (ImageFormat::Jpeg, _) => ends(bytes),
        (ImageFormat::WebP, [_, _, _, _, a, b, c, d, rest @ ..]) => {
            rest.len() >= u32::from_le_bytes([*a, *b, *c, *d]) as usize
        }
        _ => true,
    }
}

/// True if the scan data of a JPEG file has an end marker. The decoder fills missing data with
/// grey, where Pillow refuses the file. Markers before the scan do not count: an EXIF thumbnail
/// has one.
fn ends(bytes: &[u8]) -> bool {
    const SCAN: u8 = 0xda;
    const END: u8 = 0xd9;
    let mut rest = bytes.get(2..).unwrap_or_default();
    loop {
        match rest {
            [0xff, SCAN, data @ ..] => return data.windows(2).any(|pair| pair == [0xff, END]),
            // Filling, and marks without a length.
            [0xff, 0xff, ..] | [0xff, 0x01 | 0xd0..=0xd8, ..] => {
                rest = &rest[if rest[1] == 0xff { 1 } else { 2 }..];
            }
            [0xff, _, high, low, ..] => {
                let length = usize::from(u16::from_be_bytes([*high, *low]));
                rest = rest.get(2 + length..).unwrap_or_default();
            }
            // Bytes between segments are skipped, as by decoders.
            [_, others @ ..] => rest = others,
            [] => return false,
        }
    }
}

/// Three bytes per pixel: grey is repeated, and alpha dropped. Of 16-bit samples the upper eight
/// bits are kept, as by Pillow, which however clips 16-bit grey to white.
fn rgb(picture: DynamicImage) -> Result<Vec<u8>> {
    let high = |value: u16| (value >> 8) as u8;
    Ok(match picture {
        DynamicImage::ImageLuma8(grey) => grey.iter().flat_map(|&g| [g; 3]).collect(),
        DynamicImage::ImageLumaA8(grey) => grey.pixels().flat_map(|p| [p.0[0]; 3]).collect(),
        DynamicImage::ImageRgb8(rgb) => rgb.into_raw(),
        DynamicImage::ImageRgba8(rgba) => {
            rgba.pixels().flat_map(|p| [p.0[0], p.0[1], p.0[2]]).collect()
        }
        DynamicImage::ImageLuma16(grey) => grey.iter().flat_map(|&g| [high(g); 3]).collect(),
        DynamicImage::ImageLumaA16(grey) => grey.pixels().flat_map(|p| [high(p.0[0]); 3]).collect(),
        DynamicImage::ImageRgb16(rgb) => rgb.iter().map(|&value| high(value)).collect(),
        DynamicImage::ImageRgba16(rgba) => {
            rgba.pixels().flat_map(|p| [p.0[0], p.0[1], p.0[2]].map(high)).collect()
        }
        other => return Err(invalid(format!("{:?} is not supported", other.color()))),
    })
}

/// The error of a decoder as a message of one line.
fn explain(format: ImageFormat, error: ImageError) -> Error {
    let name = name(format);
    match error {
        ImageError::Limits(_) => {
            invalid(format!("{name} data needs more than {} MiB to decode", MAX_MEMORY >> 20))
        }
        ImageError::IoError(error) if error.kind() == ErrorKind::UnexpectedEof => {
            invalid(format!("{name} data is cut short"))
        }
        ImageError::Unsupported(error) => invalid(format!("{name} data is not supported: {error}")),
        error => {
            let what = error.source().map_or_else(|| error.to_string(), ToString::to_string);
            invalid(format!("{name} data is damaged: {what}"))
        }
    }
}

fn name(format: ImageFormat) -> String {
    format!("{format:?}").to_uppercase()
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(Kind::Validation, "image", message)
}
