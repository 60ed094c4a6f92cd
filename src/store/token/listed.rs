//! Edges' tokens that the operator lists in a file, instead of those that the store signs: two while they are changed.
//!
//! A token that is taken out of the file is worth nothing within seconds, and no other token has to change for that.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};
use tokio::sync::watch;

use crate::store::upkeep::pause;

/// Time between two looks at the file.
const PAUSE: Duration = Duration::from_secs(1);

/// Most tokens in it.
const MAX_TOKENS: usize = 8;

/// The tokens that are in the file.
pub struct ListedTokens {
    file: PathBuf,
    /// Their SHA-256: whoever compares those learns nothing from the time that it takes.
    hashes: RwLock<Arc<[[u8; 32]]>>,
}

impl ListedTokens {
    /// Reads the file; the error is one line that names it.
    pub fn open(file: PathBuf) -> Result<Self, String> {
        let hashes = RwLock::new(read(&file)?);
        let mode = file.metadata().map_or(0, |metadata| metadata.permissions().mode());
        if mode & 0o044 != 0 {
            let file = file.display();
            tracing::warn!("others than its owner may read the edges' tokens in {file}; run: chmod go-rwx {file}");
        }
        Ok(Self { file, hashes })
    }

    fn hashes(&self) -> Arc<[[u8; 32]]> {
        Arc::clone(&self.hashes.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether the token is in the file.
    pub fn has(&self, token: &str) -> bool {
        let sent: [u8; 32] = Sha256::digest(token).into();
        let is_one = self.hashes().iter().fold(Choice::from(0), |is_one, hash| is_one | hash.ct_eq(&sent));
        is_one.into()
    }

    /// Reads the file again and again until `stopping`. One that cannot be read is said once; what was in it stays.
    pub async fn follow(self: Arc<Self>, mut stopping: watch::Receiver<bool>) {
        let mut said = String::new();
        while pause(PAUSE, &mut stopping).await {
            let file = self.file.clone();
            let Ok(read) = tokio::task::spawn_blocking(move || read(&file)).await else { continue };
            match read {
                Ok(hashes) => {
                    said.clear();
                    if hashes != self.hashes() {
                        tracing::info!(tokens = hashes.len(), "the edges' tokens have changed and are in force");
                        *self.hashes.write().unwrap_or_else(PoisonError::into_inner) = hashes;
                    }
                }
                Err(error) if error != said => {
                    tracing::error!(error, "the edges' tokens could not be read again; those before stay in force");
                    said = error;
                }
                Err(_) => {}
            }
        }
    }
}

fn read(file: &Path) -> Result<Arc<[[u8; 32]]>, String> {
    let name = file.display();
    let text = std::fs::read_to_string(file).map_err(|error| format!("cannot read {name}: {error}"))?;
    let lines = text.lines().enumerate().map(|(line, text)| (line.saturating_add(1), text.trim()));
    let tokens = lines.filter(|(_, token)| !token.is_empty() && !token.starts_with('#'));
    let hashes: Result<Arc<[_]>, _> = tokens
        .map(|(line, token)| {
            // What the filter takes, and what nobody guesses.
            let is_fit = (32..=8_192).contains(&token.len()) && token.bytes().all(|b| b.is_ascii_graphic());
            let unfit =
                || format!("{name}, line {line}: a token has 32 to 8,192 printable ASCII characters without blanks");
            is_fit.then(|| Sha256::digest(token).into()).ok_or_else(unfit)
        })
        .collect();
    match hashes {
        Ok(hashes) if (1..=MAX_TOKENS).contains(&hashes.len()) => Ok(hashes),
        Ok(_) => Err(format!("{name} must have 1 to {MAX_TOKENS} tokens, one a line")),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_one_token_a_line_of_a_length_that_nobody_guesses() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tokens");
        let open = |text: &str| {
            std::fs::write(&file, text).unwrap();
            ListedTokens::open(file.clone())
        };
        let [one, other] = ["a", "b"].map(|letter| letter.repeat(32));
        let tokens = open(&format!("# new\n{one}\n\n  {other}\r\n")).ok().unwrap();
        for (token, is_one) in [(&*one, true), (&other, true), (&"a".repeat(33), false), ("", false), ("# new", false)]
        {
            assert_eq!(tokens.has(token), is_one, "{token}");
        }
        for (text, says) in [
            (String::new(), "must have 1 to 8 tokens"),
            ("# nothing\n".to_owned(), "must have 1 to 8 tokens"),
            (format!("{one}\n").repeat(9), "must have 1 to 8 tokens"),
            (format!("{one}\n{}", "a".repeat(31)), "line 2: a token has"),
            (format!("{one} {other}"), "line 1: a token has"),
        ] {
            let error = open(&text).err().unwrap();
            assert!(error.contains(says) && !error.contains('\n') && !error.contains(&one), "{error}");
        }
    }
}
