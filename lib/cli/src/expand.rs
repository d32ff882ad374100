//! Expansion of `~` and of variables in a path, as Python's `os.path` expands them for
//! huggingface_hub.

use std::env;
use std::ffi::{CStr, CString, OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// Longest entry of the user database that is read, in bytes.
const ENTRY: usize = 16 << 10;

/// `path` with `~`, `~user`, `$NAME` and `${NAME}` replaced; what is not known stays as it is.
/// `home` is the directory that `~` stands for.
pub fn expand(
    path: &OsStr,
    home: Option<&OsStr>,
    variable: &impl Fn(&str) -> Option<OsString>,
) -> PathBuf {
    let path = with_home(path.as_bytes(), home);
    PathBuf::from(OsString::from_vec(with_variables(&path, variable)))
}

/// The home directory of this user: `HOME`, or else that of the user database.
pub fn home() -> Option<OsString> {
    env::home_dir().map(PathBuf::into_os_string).filter(|home| !home.is_empty())
}

fn with_home(path: &[u8], home: Option<&OsStr>) -> Vec<u8> {
    let Some(rest) = path.strip_prefix(b"~") else {
        return path.to_owned();
    };
    let end = rest.iter().position(|byte| *byte == b'/').unwrap_or(rest.len());
    let (user, rest) = rest.split_at(end);
    let home = if user.is_empty() { home.map(OsStr::to_owned) } else { home_of(user) };
    let Some(home) = home else {
        return path.to_owned();
    };
    let home = home.as_bytes();
    match [home.strip_suffix(b"/").unwrap_or(home), rest].concat() {
        root if root.is_empty() => b"/".to_vec(),
        path => path,
    }
}

fn with_variables(path: &[u8], variable: &impl Fn(&str) -> Option<OsString>) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.iter().position(|byte| *byte == b'$') {
        out.extend(&rest[..at]);
        rest = &rest[at..];
        let (name, whole) = name(rest);
        match str::from_utf8(name).ok().filter(|name| !name.is_empty()).and_then(variable) {
            Some(value) => out.extend(value.as_bytes()),
            None => out.extend(&rest[..whole]),
        }
        rest = &rest[whole..];
    }
    out.extend(rest);
    out
}

/// The name of the variable that `text`, which begins with a dollar sign, refers to, and the length
/// of the reference in bytes; an empty name if it refers to none.
fn name(text: &[u8]) -> (&[u8], usize) {
    if let Some(braced) = text.strip_prefix(b"${") {
        let end = braced.iter().position(|byte| *byte == b'}');
        return end.map_or((b"", 1), |end| (&braced[..end], end + 3));
    }
    let is_name = |byte: &&u8| byte.is_ascii_alphanumeric() || **byte == b'_';
    let length = text[1..].iter().take_while(is_name).count();
    (&text[1..=length], length + 1)
}

/// The home directory of the user `name` in the user database.
fn home_of(name: &[u8]) -> Option<OsString> {
    let name = CString::new(name).ok()?;
    let mut entry = std::mem::MaybeUninit::<libc::passwd>::uninit();
    let (mut buffer, mut found) = (vec![0; ENTRY], std::ptr::null_mut());
    // SAFETY: all pointers are valid for the call, and the buffer has the length that is given.
    unsafe {
        libc::getpwnam_r(
            name.as_ptr(),
            entry.as_mut_ptr(),
            buffer.as_mut_ptr(),
            buffer.len(),
            &mut found,
        );
    }
    if found.is_null() {
        return None;
    }
    // SAFETY: an entry was found, so it is filled, and its strings lie in the buffer.
    let home = unsafe { CStr::from_ptr((*found).pw_dir) };
    Some(OsString::from_vec(home.to_bytes().to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_expand_as_in_python() {
        let variables = [("A", "/a"), ("B_1", "b$A"), ("EMPTY", "")];
        let find = |name: &str| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
        };
        let expand =
            |path: &str| expand(path.as_ref(), Some("/h/".as_ref()), &find).display().to_string();
        for (path, expanded) in [
            ("~", "/h"),
            ("~/x", "/h/x"),
            ("x/~", "x/~"),
            ("~root/x", "/root/x"),
            ("~no-such-user/x", "~no-such-user/x"),
            ("$A/c", "/a/c"),
            ("${A}c/$B_1", "/ac/b$A"),
            ("$NONE/${NONE}/$", "$NONE/${NONE}/$"),
            ("$EMPTY/x${", "/x${"),
            ("~/$A", "/h//a"),
            ("$$A", "$/a"),
            ("ä$Aü", "ä/aü"),
        ] {
            // The home of root differs between systems.
            let expanded = if cfg!(target_os = "macos") && path.starts_with("~root") {
                "/var/root/x"
            } else {
                expanded
            };
            assert_eq!(expand(path), expanded, "{path}");
        }
    }
}
