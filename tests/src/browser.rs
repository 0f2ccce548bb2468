//! A headless Chromium, driven over its debugging pipe: what a person sees and does on a page, and what the page did wrong.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::skip;

/// Debian's name of it.
pub const PROGRAM: &str = "chromium";
/// The host, where there is a browser; else the test is skipped.
pub fn host(test: &str) -> Option<skip::Host> {
    if skip::installed(PROGRAM) {
        return skip::host(test);
    }
    skip::skipped(test, "needs chromium");
    None
}

/// Where people want pictures left of what tests see: the directory that `KVMETER_PICTURES` names.
pub fn pictures() -> Option<PathBuf> {
    std::env::var_os("KVMETER_PICTURES").map(PathBuf::from)
}

/// How long a page, or an answer, may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A browser with one page, killed and reaped when dropped.
pub struct Browser {
    child: Child,
    to: ChildStdin,
    from: Receiver<Value>,
    session: Option<String>,
    next: u64,
    /// What the page did wrong: exceptions, and what its policy or the network refused.
    pub wrong: Vec<String>,
    _profile: TempDir,
}

impl Browser {
    /// Opens a page of this size.
    pub fn open(url: &str, width: u32, height: u32) -> Result<Self> {
        let profile = TempDir::new()?;
        // The pipe is descriptors 3 and 4.
        let mut command = Command::new("sh");
        command.args(["-c", "exec \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>&1", "sh", PROGRAM]);
        command.args(["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--no-first-run"]);
        command.args(["--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"]);
        command.arg(format!("--user-data-dir={}", profile.path().display())).arg("about:blank");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let (to, out) = (child.stdin.take().context("no stdin")?, child.stdout.take().context("no stdout")?);
        let (into, from) = channel();
        std::thread::spawn(move || {
            for message in BufReader::new(out).split(0) {
                let Ok(message) = message else { return };
                if serde_json::from_slice(&message).map(|message: Value| into.send(message)).is_err() {
                    return;
                }
            }
        });
        let mut browser = Self { child, to, from, session: None, next: 0, wrong: Vec::new(), _profile: profile };
        let target = browser.call("Target.createTarget", &json!({ "url": "about:blank" }))?["targetId"].clone();
        let attached = browser.call("Target.attachToTarget", &json!({ "targetId": target, "flatten": true }))?;
        browser.session = Some(attached["sessionId"].as_str().context("no session")?.to_owned());
        for domain in ["Page", "Runtime", "Log", "Accessibility"] {
            browser.call(&format!("{domain}.enable"), &json!({}))?;
        }
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        browser.call("Emulation.setDeviceMetricsOverride", &size)?;
        browser.call("Page.navigate", &json!({ "url": url }))?;
        browser.wait("document.readyState === 'complete'")?;
        Ok(browser)
    }

    /// One request of the debugging protocol, and its result.
    pub fn call(&mut self, method: &str, params: &Value) -> Result<Value> {
        self.next += 1;
        let mut request = json!({ "id": self.next, "method": method, "params": params });
        if let Some(session) = &self.session {
            request["sessionId"] = json!(session);
        }
        self.to.write_all(format!("{request}\0").as_bytes())?;
        let end = Instant::now() + PATIENCE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let message = self.from.recv_timeout(left).with_context(|| format!("{method}: no answer"))?;
            if message["id"] == self.next {
                ensure!(message["error"].is_null(), "{method}: {}", message["error"]);
                return Ok(message["result"].clone());
            }
            self.note(&message);
        }
    }

    fn note(&mut self, message: &Value) {
        let params = &message["params"];
        match message["method"].as_str() {
            Some("Runtime.exceptionThrown") => self.wrong.push(params["exceptionDetails"].to_string()),
            Some("Log.entryAdded") if params["entry"]["level"] == "error" => {
                self.wrong.push(params["entry"].to_string())
            }
            _ => {}
        }
    }

    /// The value of an expression in the page; a promise is waited for.
    pub fn value(&mut self, expression: &str) -> Result<Value> {
        let asked = json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let answer = self.call("Runtime.evaluate", &asked)?;
        ensure!(answer["exceptionDetails"].is_null(), "{expression}: {}", answer["exceptionDetails"]);
        Ok(answer["result"]["value"].clone())
    }

    /// Waits until an expression is true.
    pub fn wait(&mut self, expression: &str) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        while self.value(&format!("Boolean({expression})"))? != true {
            if Instant::now() > end {
                let text = self.value("document.body?.innerText")?;
                bail!(
                    "still waiting for {expression}; wrong: {:?}; the page:\n{}",
                    self.wrong,
                    text.as_str().unwrap_or("")
                );
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Presses a key on what has the focus.
    pub fn key(&mut self, key: &str) -> Result<()> {
        let text = match key {
            "Enter" => "\r",
            one if one.chars().count() == 1 => one,
            _ => "",
        };
        let code = match key {
            "Enter" => 13,
            "Tab" => 9,
            "ArrowLeft" => 37,
            _ => 0,
        };
        let down = if text.is_empty() { "rawKeyDown" } else { "keyDown" };
        self.call(
            "Input.dispatchKeyEvent",
            &json!({ "type": down, "key": key, "text": text, "windowsVirtualKeyCode": code }),
        )?;
        self.call("Input.dispatchKeyEvent", &json!({ "type": "keyUp", "key": key, "windowsVirtualKeyCode": code }))
            .map(drop)
    }

    /// Moves the pressed mouse from one point to another.
    pub fn drag(&mut self, from: (f64, f64), to: (f64, f64)) -> Result<()> {
        for (kind, (x, y)) in [("mouseMoved", from), ("mousePressed", from), ("mouseMoved", to), ("mouseReleased", to)]
        {
            let buttons = u8::from(kind != "mouseReleased");
            let event = json!({ "type": kind, "x": x, "y": y, "button": "left", "buttons": buttons, "clickCount": 1 });
            self.call("Input.dispatchMouseEvent", &event)?;
        }
        Ok(())
    }

    /// What a screen reader is told: role and name of each thing.
    pub fn spoken(&mut self) -> Result<Vec<(String, String)>> {
        let tree = self.call("Accessibility.getFullAXTree", &json!({}))?;
        let nodes = tree["nodes"].as_array().context("no tree")?.iter();
        let seen = nodes.filter(|node| node["ignored"] != true);
        let text = |value: &Value| value["value"].as_str().unwrap_or("").to_owned();
        Ok(seen.map(|node| (text(&node["role"]), text(&node["name"]))).collect())
    }

    /// Writes what is seen to a PNG.
    pub fn picture(&mut self, path: &Path) -> Result<()> {
        let answer = self.call("Page.captureScreenshot", &json!({ "format": "png" }))?;
        let encoded = answer["data"].as_str().context("no picture")?;
        std::fs::write(path, from_base64(encoded).context("no base64")?).context("the picture cannot be written")
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn from_base64(text: &str) -> Option<Vec<u8>> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut held, mut bits) = (0_u32, 0);
    for digit in text.bytes().filter(|digit| *digit != b'=') {
        held = (held << 6) | u32::try_from(DIGITS.iter().position(|known| *known == digit)?).ok()?;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push(u8::try_from((held >> bits) & 0xff).ok()?);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    #[test]
    fn base64_is_read() {
        assert_eq!(super::from_base64("a3ZtZXRlcg==").unwrap(), b"kvmeter");
    }
}
