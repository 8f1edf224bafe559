//! What there is to tell of scripts, of libraries of functions and of the interpreter.

/// What a worker knows of them, and how much memory it takes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// The memory of the Lua state.
    pub lua_bytes: usize,
    /// The scripts, and their bytes.
    pub scripts: usize,
    /// As said.
    pub scripts_bytes: usize,
    /// The libraries.
    pub libraries: usize,
    /// Their functions.
    pub functions: usize,
    /// The bytes of their code.
    pub libraries_bytes: usize,
}

impl Usage {
    /// Adds another worker's. Each worker has an interpreter; all know the same scripts and libraries.
    pub fn add(&mut self, other: &Usage) {
        self.lua_bytes += other.lua_bytes;
        self.scripts = self.scripts.max(other.scripts);
        self.scripts_bytes = self.scripts_bytes.max(other.scripts_bytes);
        self.libraries = self.libraries.max(other.libraries);
        self.functions = self.functions.max(other.functions);
        self.libraries_bytes = self.libraries_bytes.max(other.libraries_bytes);
    }
}
