//! How a server's workers ended, which the example server does not say.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::error::Doing;
use crate::{DEADLINE, Folder, Process, Result};

/// The line for a child that ended with status 0 and by no signal.
pub const IN_ORDER: &str = "child ended with status 0\n";

/// What every such line begins with.
pub const ENDED: &str = "child ended with status ";

/// Prints how each child ended that the program waits for.
const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <stdio.h>
#include <sys/wait.h>

pid_t wait(int *status)
{
    int own;
    pid_t child = waitpid(-1, &own, 0);
    if (child > 0)
        printf("child ended with status %d\n", own);
    if (status != NULL)
        *status = own;
    return child;
}
"#;

/// Compiles, in `folder`, a library that has a server print a line for each child that it waits
/// for, once it is named in `LD_PRELOAD`.
pub fn reporter(folder: &Folder) -> Result<PathBuf> {
    let (source, library) = (folder.file("report.c"), folder.file("report.so"));
    fs::write(&source, SOURCE).doing("writing a program")?;
    let mut command = Command::new("cc");
    command.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source);
    let mut compiler = Process::start(command, "gcc")?;
    if compiler.wait_end(DEADLINE)?.success() {
        Ok(library)
    } else {
        Err(compiler.unexpected("does not compile"))
    }
}
