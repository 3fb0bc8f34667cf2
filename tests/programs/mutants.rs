//! What is wrong with each mutant: a fault that a person might write.

pub(crate) struct Mutant {
    pub(crate) program: &'static str,
    pub(crate) what: &'static str,
    pub(crate) old: &'static str,
    pub(crate) new: &'static str,
}

const fn mutant(
    program: &'static str,
    what: &'static str,
    old: &'static str,
    new: &'static str,
) -> Mutant {
    Mutant { program, what, old, new }
}

pub(crate) const MUTANTS: &[Mutant] = &[
    mutant("echo_server", "no retry after EMFILE", "Some(RETRY_AFTER)", "None"),
    mutant("echo_server", "one accept for each edge", "_ => Some(Duration::ZERO),", "_ => None,"),
    mutant(
        "echo_server",
        "an accept is forgotten after one that was aborted",
        "error.kind() == ErrorKind::WouldBlock => None,",
        "matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::ConnectionAborted) => None,",
    ),
    mutant(
        "echo_server",
        "no interest in room to write",
        "object.with_interest(Interest::BOTH)",
        "object.with_interest(Interest::READABLE)",
    ),
    mutant(
        "echo_server",
        "no modify after a fair share",
        "self.registry.modify(both_ways(object)).is_ok()",
        "true",
    ),
    mutant(
        "echo_server",
        "a partial write is taken for whole",
        "self.unsent.start += written;",
        "self.unsent.start = self.unsent.end;",
    ),
    mutant(
        "echo_server",
        "one read for each edge",
        "for _ in 0..FAIR_SHARE {",
        "if self.unsent.is_empty() { self.unsent = 0..self.stream.read(&mut *self.buffer)?; }\n        \
         while !self.unsent.is_empty() { let written = self.stream.write(&self.buffer[self.unsent.clone()])?; self.unsent.start += written; }\n        \
         if !self.unsent.is_empty() { return Ok(ControlFlow::Continue(())); }\n        \
         return Err(ErrorKind::WouldBlock.into());\n        #[allow(unreachable_code, reason = \"a mutant\")]\n        for _ in 0..FAIR_SHARE {",
    ),
    mutant("echo_server", "the listener blocks", "listener.set_nonblocking(true)?;", ""),
    mutant(
        "proxy",
        "no retry after EMFILE",
        "not_served(&error);\n                Some(Duration::from_millis(100))",
        "None",
    ),
    mutant("proxy", "the deadline of an attempt to connect stays", "pair.deadline = None;", ""),
    mutant(
        "proxy",
        "one accept for each edge",
        "Ok(()) => Some(Duration::ZERO),",
        "Ok(()) => None,",
    ),
    mutant(
        "proxy",
        "an end is not passed on",
        "[] => to.shutdown(Shutdown::Write).map(|()| 0),",
        "[] => Ok(0),",
    ),
    mutant(
        "proxy",
        "a pair ends with its first direction",
        "Ok(client.has_ended && upstream.has_ended ||",
        "Ok(client.has_ended || upstream.has_ended ||",
    ),
    mutant(
        "proxy",
        "a partial write is taken for whole",
        "self.stream.consume(count);",
        "{ let all = self.stream.buffer().len(); self.stream.consume(all); }",
    ),
    mutant(
        "proxy",
        "no modify after a buffer was passed on",
        "registry.modify(client.object)?;\n            registry.modify(upstream.object)?;",
        "",
    ),
    mutant(
        "http_server",
        "an idle connection is never closed",
        "let is_active = connection.last_active.elapsed() < idle;",
        "let is_active = true;",
    ),
    mutant("http_server", "the timer is not cleared", "self.timer.clear()?;", ""),
    mutant(
        "http_server",
        "answers are dropped that find no room",
        "let written = self.stream.write(&self.output)?;",
        "let written = self.stream.write(&self.output).unwrap_or(self.output.len());",
    ),
    mutant(
        "http_server",
        "clients who had no descriptor are forgotten",
        "has_clients = true;\n                    connections.retain",
        "connections.retain",
    ),
    mutant(
        "async_runtime",
        "a wake from another thread does not end the wait",
        "let _ = self.1.way_in.wake();",
        "",
    ),
    mutant(
        "async_runtime",
        "who waits for room is not woken",
        "writer.take_if(|_| event.is_writable())",
        "writer.take_if(|_| false)",
    ),
    mutant(
        "async_runtime",
        "a failed accept ends the serving",
        "runtime.sleep(Duration::from_millis(100)).await;",
        "return;",
    ),
    mutant(
        "graceful_shutdown",
        "an answer that was not taken is forgotten at the end",
        "Err(ErrorKind::WouldBlock) if !client.buffer().is_empty() => Ok(()),",
        "",
    ),
    mutant(
        "graceful_shutdown",
        "before its fix: clients who had no descriptor are forgotten",
        "break self.retry = Some(Duration::from_millis(100));",
        "break;",
    ),
];
