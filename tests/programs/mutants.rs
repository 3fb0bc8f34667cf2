//! Mutants, each with one mistake that a person might make.

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
    mutant(
        "echo_server",
        "no end to the pause after EMFILE",
        "self.pause.is_some_and(|end| end <= Instant::now())",
        "false",
    ),
    mutant(
        "echo_server",
        "the listener is edge-triggered",
        "TcpListener::bind(address)?, EventObject::server)",
        "TcpListener::bind(address)?, |fd| EventObject::server(fd).with_mode(Mode::Edge))",
    ),
    mutant(
        "echo_server",
        "no interest in room to write",
        "with_interest(Interest::BOTH)",
        "with_interest(Interest::READABLE)",
    ),
    mutant(
        "echo_server",
        "no modify after a fair share",
        "clients.modify(event, both_ways).is_ok()",
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
        "if self.unsent.is_empty() { self.unsent = 0..stream.read(&mut *self.bytes)?; }\n        \
         while !self.unsent.is_empty() { let written = stream.write(&self.bytes[self.unsent.clone()])?; self.unsent.start += written; }\n        \
         if !self.unsent.is_empty() { return Ok(ControlFlow::Continue(())); }\n        \
         return Err(ErrorKind::WouldBlock.into());\n        #[allow(unreachable_code, reason = \"a mutant\")]\n        for _ in 0..FAIR_SHARE {",
    ),
    mutant("echo_server", "the listener blocks", "socket.set_nonblocking(true)?;", ""),
    mutant(
        "proxy",
        "no look at the upstream before it is given up",
        "match pair.connected() {\n            // An event",
        "match Ok::<bool, io::Error>(false) {\n            // An event",
    ),
    mutant("proxy", "the deadline of an attempt to connect stays", "pair.deadline = None;", ""),
    mutant(
        "proxy",
        "an end is not passed on",
        "[] => to.shutdown(Shutdown::Write).map(|()| 0),",
        "[] => Ok(0),",
    ),
    mutant(
        "proxy",
        "a pair ends with its first direction",
        "client.has_ended && upstream.has_ended ||",
        "client.has_ended || upstream.has_ended ||",
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
        "client.look_again()?;\n            upstream.look_again()?;",
        "",
    ),
    mutant(
        "http_server",
        "an idle connection is never closed",
        "it.is_idle(limit).then_some(key)",
        "false.then_some(key)",
    ),
    mutant(
        "http_server",
        "no look at a connection before it is closed",
        "serve_one(connections, key);\n",
        "",
    ),
    mutant("http_server", "the timer is not cleared", "self.timer.get_ref().clear()?;", ""),
    mutant(
        "http_server",
        "answers are dropped that find no room",
        "let written = stream.write(&self.output)?;",
        "let written = stream.write(&self.output).unwrap_or(self.output.len());",
    ),
    mutant(
        "http_server",
        "clients who had no descriptor are forgotten",
        "self.listener.resume();",
        "",
    ),
    mutant(
        "async_runtime",
        "a wake from another thread does not end the wait",
        "let _ = self.1.way_in.wake();",
        "",
    ),
    mutant(
        "async_runtime",
        "a wake from another thread comes before its reason",
        "self.1.numbers.lock().unwrap().push(self.0);",
        "let _ = self.1.way_in.wake();\n        \
         self.1.numbers.lock().unwrap().push(self.0);\n        \
         if true { return; }",
    ),
    mutant(
        "async_runtime",
        "a task that waits for room is not woken",
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
        "is_owed || listener.is_some()",
        "listener.is_some()",
    ),
    mutant(
        "graceful_shutdown",
        "clients who had no descriptor are forgotten",
        "listener.iter_mut().for_each(Listener::resume);",
        "",
    ),
    mutant("graceful_shutdown", "no last look at the end of the grace", "0..LAST_ANSWERS", "0..0"),
    mutant(
        "resp_server",
        "no wait for room to write",
        "clients.modify(event, object).is_err()",
        "false",
    ),
    mutant(
        "resp_server",
        "commands behind much output are forgotten",
        "break true;",
        "break false;",
    ),
    mutant(
        "resp_server",
        "a partial write is taken for whole",
        "Ok(count) => drop(self.output.drain(..count)),",
        "Ok(_) => self.output.clear(),",
    ),
    mutant(
        "resp_server",
        "a command that is not whole is forgotten",
        "self.input.drain(..taken);",
        "self.input.clear();",
    ),
    mutant("resp_server", "clients who had no descriptor are forgotten", "listener.resume();", ""),
    mutant(
        "resolver",
        "any answer is taken for the last question's",
        "Ok(count) if buffer[..count].starts_with(&id) =>",
        "Ok(count @ 2..) =>",
    ),
    mutant(
        "resolver",
        "no timeout for an answer that is lost",
        "self.poller.wait_timeout(Some(time_left))?",
        "self.poller.wait(-1)?",
    ),
];
