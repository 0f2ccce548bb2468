//! What an orchestrator states of a VM, over the agent's socket.

use std::os::unix::net::UnixStream;

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::{
    agent::Agent,
    http::{self, Answer},
};

/// Makes a statement; the answer.
pub fn make(agent: &Agent, body: &Value) -> Result<Answer> {
    http::send(UnixStream::connect(agent.socket())?, "POST", "/v1/annotations", &body.to_string())
}

/// Makes a statement that is taken.
pub fn state(agent: &Agent, body: Value) -> Result<()> {
    let answer = make(agent, &body)?;
    ensure!(answer.code == 202, "{body}: {} {}", answer.code, answer.body);
    Ok(())
}
