//! Files of a push that look like secrets: by their names, or by a token or key in a small file.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use ignore::gitignore::{Gitignore, GitignoreBuilder};
use mlxk_core::{Error, Result};
use regex::bytes::Regex;

use super::local::{LocalFile, LocalFiles};

/// Names of files that hold secrets, as patterns of `.gitignore` without regard to case.
const NAMES: &str = "
.env
.env.*
*.env
.envrc
!.env.dist
!.env.example
!.env.sample
!.env.template
.netrc
_netrc
.npmrc
.pypirc
.pgpass
.htpasswd
.git-credentials
.dockercfg
.boto
.s3cfg
.vault-token
.bash_history
.zsh_history
.python_history
id_rsa*
id_dsa*
id_ecdsa*
id_ed25519*
*.pem
*.key
*.p8
*.p12
*.pfx
*.ppk
*.jks
*.keystore
*.kdbx
*.ovpn
!*.pub
.aws/
.azure/
.docker/
.gnupg/
.huggingface/
.kube/
.ssh/
.config/gcloud/
kubeconfig
stored_tokens
credentials
credentials.*
client_secret*.json
service[-_]account*.json
application_default_credentials.json
secret.*
secrets
secrets.*
";

/// Largest file that is searched for tokens, in bytes; weights and vocabularies are larger.
const MAX_SEARCHED: u64 = 1 << 20;

/// Tokens and keys, in the forms that their issuers document.
const TOKENS: [(&str, &str); 9] = [
    ("a token of Hugging Face", r"\bhf_[A-Za-z0-9]{30,}"),
    ("an OAuth token of Hugging Face", r"\bhf_oauth_[A-Za-z0-9._-]{30,}"),
    ("a token of GitHub", r"\b(gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{50})"),
    ("a token of GitLab", r"\bglpat-[A-Za-z0-9_-]{20}"),
    ("a key of OpenAI, Anthropic or their kind", r"\bsk-[A-Za-z0-9_-]{32,}"),
    ("a key of Amazon Web Services", r"\b(AKIA|ASIA)[A-Z0-9]{16}\b"),
    ("a key of Google", r"\bAIza[A-Za-z0-9_-]{35}"),
    ("a token of Slack", r"\bxox[abeoprs]-[A-Za-z0-9-]{20,}"),
    ("a private key", r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY"),
];

/// Number of last bytes that are all x in a placeholder such as `hf_xxxx…`, which is no token.
const PLACEHOLDER: usize = 12;

/// File that looks like a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secret {
    /// Path in the workspace.
    pub path: String,
    /// What it seems to be.
    pub what: &'static str,
}

/// Files of the directory `dir` that a push would send and that look like secrets.
///
/// # Errors
/// If the directory or a file cannot be read, or one of its files cannot be pushed.
pub fn secrets(dir: &Path) -> Result<Vec<Secret>> {
    find(&LocalFiles::read(dir)?)
}

pub(super) fn find(local: &LocalFiles) -> Result<Vec<Secret>> {
    let (names, tokens) = (names()?, tokens()?);
    let mut found = Vec::new();
    for file in &local.files {
        let what = match names.matched_path_or_any_parents(&file.path, false).is_ignore() {
            true => Some("a file of this name holds secrets"),
            false => token_in(file, &tokens)?,
        };
        found.extend(what.map(|what| Secret { path: file.path.clone(), what }));
    }
    Ok(found)
}

/// Kind of the token in the name or the content of `file`, if there is one.
fn token_in(file: &LocalFile, tokens: &[(&'static str, Regex)]) -> Result<Option<&'static str>> {
    let mut text = file.path.clone().into_bytes();
    if file.size <= MAX_SEARCHED {
        text.push(b'\n');
        let at = |e| Error::io(&file.disk_path, e);
        let opened = File::open(&file.disk_path).map_err(at)?;
        opened.take(MAX_SEARCHED).read_to_end(&mut text).map_err(at)?;
    }
    let is_token = |token: &[u8]| !token.iter().rev().take(PLACEHOLDER).all(|b| b"xX".contains(b));
    let holds = |pattern: &Regex| pattern.find_iter(&text).any(|found| is_token(found.as_bytes()));
    Ok(tokens.iter().find(|(_, pattern)| holds(pattern)).map(|(what, _)| *what))
}

fn names() -> Result<Gitignore> {
    let mut builder = GitignoreBuilder::new("");
    let wrong = |e: ignore::Error| Error::internal(e.to_string());
    builder.case_insensitive(true).map_err(wrong)?;
    for line in NAMES.lines() {
        builder.add_line(None, line).map_err(wrong)?;
    }
    builder.build().map_err(wrong)
}

fn tokens() -> Result<Vec<(&'static str, Regex)>> {
    let compiled = |(what, pattern): &(&'static str, &str)| {
        let pattern = Regex::new(&format!("(?-u){pattern}"));
        Ok((*what, pattern.map_err(|e| Error::internal(e.to_string()))?))
    };
    TOKENS.iter().map(compiled).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test fails by panicking

    use std::fs;

    use super::*;

    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        secrets(dir.path()).unwrap().into_iter().map(|secret| secret.path).collect()
    }

    #[test]
    fn secrets_are_known_by_name() {
        let secret = [
            ".aws/config",
            ".env",
            ".env.local",
            "ID_RSA",
            "deep/.netrc",
            "id_rsa.bak",
            "prod.env",
            "server.PEM",
            "x/.ssh/known_hosts",
        ];
        let mut expected = secret.to_vec();
        expected.sort_unstable();
        assert_eq!(found(&secret.map(|path| (path, ""))), expected);
        let plain = [".env.example", "environment.json", "id_rsa.pub", "config.json", "keys.md"];
        assert_eq!(found(&plain.map(|path| (path, ""))), [""; 0]);
    }

    #[test]
    fn secrets_are_known_by_a_token_in_name_or_content() {
        let token = "hf_AbCdEfGhIjKlMnOpQrStUvWxYz01234567";
        let secret = [
            ("a.py", &*format!("login(\"{token}\")")),
            (&*format!("b-{token}.txt"), ""),
            ("c", "-----BEGIN RSA PRIVATE KEY-----"),
            ("d.txt", "key = AKIAIOSFODNN7EXAMPLE"),
        ];
        assert_eq!(found(&secret).len(), 4);
        let plain = [
            ("README.md", "export HF_TOKEN=hf_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"),
            (
                "vocab.json",
                "{\"hf_model\": 1, \"sk-learn\": 2, \"task-123456789012345678901234567890123\": 3}",
            ),
        ];
        assert_eq!(found(&plain), [""; 0]);
    }
}
