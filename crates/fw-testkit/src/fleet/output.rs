//! What a command line said.

use serde_json::Value;

/// What a command line printed and how it ended.
#[derive(Debug)]
pub struct Output {
    /// What it was.
    pub line: String,
    /// Its data.
    pub stdout: Vec<u8>,
    /// Its messages.
    pub stderr: String,
    /// Its exit code; -1 when a signal ended it.
    pub code: i32,
}

impl Output {
    /// Checks the exit code.
    ///
    /// # Panics
    /// It is another.
    #[must_use]
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}\n{}\n{}", self.line, self.text(), self.stderr);
        self
    }

    /// Checks that all went well.
    ///
    /// # Panics
    /// It did not.
    #[must_use]
    #[track_caller]
    pub fn ok(self) -> Self {
        self.exits(0)
    }

    /// Its data as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Its data as JSON.
    ///
    /// # Panics
    /// They are none.
    #[must_use]
    #[track_caller]
    pub fn json(&self) -> Value {
        let json = serde_json::from_slice(&self.stdout);
        assert!(json.is_ok(), "{} prints no JSON: {}{}", self.line, self.text(), self.stderr);
        json.expect("checked above")
    }
}
