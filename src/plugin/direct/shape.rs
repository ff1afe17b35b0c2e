//! Which components can be called directly: those that do nothing but give one core module its imports and lift its exports,
//! as `wit-component` makes them of what compilers for C, Rust, Zig and others make.
//!
//! Nothing here guards anything: whatever a file says, its code runs in the same sandbox, with the same functions of the
//! host. It is about calling it in the same meaning.

use std::ops::Range;

use wasmparser::{
    CanonicalFunction, CanonicalOption, ComponentAlias, ComponentOuterAliasKind, ComponentTypeRef, ExternalKind,
    Instance, Operator, Parser, Payload, TypeRef,
};

/// A component that can be called directly.
#[derive(Debug)]
pub(in crate::plugin) struct Shape<'a> {
    /// The core module.
    pub(in crate::plugin) module: &'a [u8],
    /// What of it is called.
    pub(in crate::plugin) names: Names,
}

/// Names of a core module's exports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::plugin) struct Names {
    pub(super) memory: String,
    pub(super) realloc: String,
    /// To be called before all else.
    pub(super) initialize: Option<String>,
    pub(super) lifted: Vec<Lifted>,
}

/// A function of the component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lifted {
    pub(super) name: String,
    /// To be called when what it returned has been read.
    pub(super) post: Option<String>,
}

/// Where a core function of the component is from.
enum Function<'a> {
    Alias { instance: u32, name: &'a str },
    Lowered,
}

/// What the component is made of, as far as it matters; each list is one of the component's index spaces.
#[derive(Default)]
struct Parts<'a> {
    modules: Vec<Range<usize>>,
    /// The module of each core instance; none for what is only put together.
    instances: Vec<Option<u32>>,
    functions: Vec<Function<'a>>,
    memories: Vec<(u32, &'a str)>,
    lifts: Vec<(u32, Box<[CanonicalOption]>)>,
    lowers: Vec<Box<[CanonicalOption]>>,
}

/// The core module of a component, and how it is called.
///
/// # Errors
/// Why that is not all that there is to it.
pub(in crate::plugin) fn of(component: &[u8]) -> Result<Shape<'_>, String> {
    let parts = parts(component)?;
    let (first, _) = parts.lifts.first().ok_or("it exports no function")?;
    let (main, _) = parts.exported(*first)?;
    let module = parts.instances.get(main as usize).copied().flatten();
    let module = module.ok_or("its functions are not those of one core module")?;
    if parts.instances.iter().filter(|it| **it == Some(module)).count() > 1 {
        return Err("it has several instances of its core module".into());
    }
    let names = parts.names(main)?;
    for (at, range) in parts.modules.iter().enumerate() {
        let bytes = component.get(range.clone()).ok_or("it is cut short")?;
        if at == module as usize { plain(bytes)? } else { passing(bytes)? }
    }
    let module = component.get(parts.modules[module as usize].clone()).ok_or("it is cut short")?;
    Ok(Shape { module, names })
}

fn parts(component: &[u8]) -> Result<Parts<'_>, String> {
    let mut parts = Parts::default();
    let mut depth = 0;
    for payload in Parser::new(0).parse_all(component) {
        let payload = payload.map_err(told)?;
        match &payload {
            Payload::ModuleSection { unchecked_range, .. } if depth == 0 => parts.modules.push(unchecked_range.clone()),
            _ => {}
        }
        match payload {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth -= 1,
            payload if depth == 0 => parts.take(payload)?,
            _ => {}
        }
    }
    Ok(parts)
}

impl<'a> Parts<'a> {
    fn take(&mut self, payload: Payload<'a>) -> Result<(), String> {
        match payload {
            Payload::InstanceSection(section) => {
                for instance in section {
                    self.instances.push(match instance.map_err(told)? {
                        Instance::Instantiate { module_index, .. } => Some(module_index),
                        Instance::FromExports(_) => None,
                    });
                }
            }
            Payload::ComponentAliasSection(section) => {
                for alias in section {
                    self.alias(alias.map_err(told)?)?;
                }
            }
            Payload::ComponentCanonicalSection(section) => {
                for function in section {
                    match function.map_err(told)? {
                        CanonicalFunction::Lift { core_func_index, options, .. } => {
                            self.lifts.push((core_func_index, options));
                        }
                        CanonicalFunction::Lower { options, .. } => {
                            self.functions.push(Function::Lowered);
                            self.lowers.push(options);
                        }
                        _ => return Err("it uses resources, threads or asynchronous functions".into()),
                    }
                }
            }
            Payload::ComponentImportSection(section) => {
                for import in section {
                    if matches!(import.map_err(told)?.ty, ComponentTypeRef::Module(_)) {
                        return Err("it imports a module".into());
                    }
                }
            }
            Payload::ComponentStartSection { .. } => return Err("it has a start function".into()),
            _ => {}
        }
        Ok(())
    }

    fn alias(&mut self, alias: ComponentAlias<'a>) -> Result<(), String> {
        match alias {
            ComponentAlias::CoreInstanceExport { kind, instance_index: instance, name } => match kind {
                ExternalKind::Func | ExternalKind::FuncExact => {
                    self.functions.push(Function::Alias { instance, name });
                }
                ExternalKind::Memory => self.memories.push((instance, name)),
                ExternalKind::Table | ExternalKind::Global | ExternalKind::Tag => {}
            },
            ComponentAlias::Outer { kind: ComponentOuterAliasKind::CoreModule, .. } => {
                return Err("it uses a module of somebody else's".into());
            }
            ComponentAlias::InstanceExport { kind: wasmparser::ComponentExternalKind::Module, .. } => {
                return Err("it uses a module of somebody else's".into());
            }
            ComponentAlias::Outer { .. } | ComponentAlias::InstanceExport { .. } => {}
        }
        Ok(())
    }

    /// The instance and the name of a core function that some instance exports.
    fn exported(&self, function: u32) -> Result<(u32, &'a str), String> {
        match self.functions.get(function as usize) {
            Some(Function::Alias { instance, name }) => Ok((*instance, name)),
            _ => Err("it exports a function that it imports".into()),
        }
    }

    /// The same for one that only this instance may export.
    fn own(&self, main: u32, function: u32) -> Result<&'a str, String> {
        let (instance, name) = self.exported(function)?;
        if instance == main { Ok(name) } else { Err("its functions are of several core modules".into()) }
    }

    /// What of the main module's instance is used, and that it is used as usual.
    fn names(&self, main: u32) -> Result<Names, String> {
        let (mut memory, mut realloc) = (None, None);
        let mut lifted = Vec::new();
        let lifts = self.lifts.iter().map(|(function, options)| (Some(*function), options));
        for (function, options) in lifts.chain(self.lowers.iter().map(|options| (None, options))) {
            let mut post = None;
            for option in options {
                let (place, name) = match option {
                    CanonicalOption::UTF8 => continue,
                    CanonicalOption::UTF16 | CanonicalOption::CompactUTF16 => {
                        return Err("its strings are not UTF-8".into());
                    }
                    CanonicalOption::Memory(at) => match self.memories.get(*at as usize) {
                        Some((instance, name)) if *instance == main => (&mut memory, *name),
                        _ => return Err("it uses the memory of another core module".into()),
                    },
                    CanonicalOption::Realloc(at) => (&mut realloc, self.own(main, *at)?),
                    CanonicalOption::PostReturn(at) => (&mut post, self.own(main, *at)?),
                    CanonicalOption::Async
                    | CanonicalOption::Callback(_)
                    | CanonicalOption::CoreType(_)
                    | CanonicalOption::Gc => return Err("it uses asynchronous functions, or garbage collection".into()),
                };
                if *place.get_or_insert(name) != name {
                    return Err("it uses several memories, or ways of making room".into());
                }
            }
            if let Some(function) = function {
                let name = self.own(main, function)?.to_owned();
                lifted.push(Lifted { name, post: post.map(str::to_owned) });
            }
        }
        let memory = memory.ok_or("it has no memory")?.to_owned();
        let realloc = realloc.ok_or("it has no function that makes room in its memory")?.to_owned();
        let mut names = Names { memory, realloc, initialize: None, lifted };
        for function in &self.functions {
            match function {
                Function::Alias { instance, name } if *instance == main => {
                    if *name == "_initialize" {
                        names.initialize = Some((*name).to_owned());
                    } else if !names.has(name) {
                        return Err(format!("it uses its core function {name} in a way of its own"));
                    }
                }
                _ => {}
            }
        }
        Ok(names)
    }
}

impl Names {
    fn has(&self, name: &str) -> bool {
        let lifted = |it: &Lifted| it.name == name || it.post.as_deref() == Some(name);
        self.realloc == name || self.lifted.iter().any(lifted)
    }
}

/// Whether a core module can be called without a component around it: one memory of its own, nothing imported but
/// functions, nothing that runs before its imports can be called.
fn plain(module: &[u8]) -> Result<(), String> {
    let mut memories = 0;
    for payload in Parser::new(0).parse_all(module) {
        match payload.map_err(told)? {
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    if !matches!(import.map_err(told)?.ty, TypeRef::Func(_)) {
                        return Err("its core module imports more than functions".into());
                    }
                }
            }
            Payload::MemorySection(section) => {
                for memory in section {
                    let memory = memory.map_err(told)?;
                    if memory.memory64 || memory.shared || memory.page_size_log2.is_some() {
                        return Err("its memory is an unusual one".into());
                    }
                    memories += 1;
                }
            }
            Payload::StartSection { .. } => return Err("its core module has a start function".into()),
            _ => {}
        }
    }
    if memories == 1 { Ok(()) } else { Err(format!("its core module has {memories} memories")) }
}

/// Whether a core module can only pass calls on, as those do that `wit-component` adds.
fn passing(module: &[u8]) -> Result<(), String> {
    let own = || "it has several core modules with code of their own".to_owned();
    for payload in Parser::new(0).parse_all(module) {
        match payload.map_err(told)? {
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    if !matches!(import.map_err(told)?.ty, TypeRef::Func(_) | TypeRef::Table(_)) {
                        return Err(own());
                    }
                }
            }
            Payload::MemorySection(_) | Payload::GlobalSection(_) | Payload::DataSection(_) => return Err(own()),
            Payload::CodeSectionEntry(body) => {
                for operator in body.get_operators_reader().map_err(told)? {
                    match operator.map_err(told)? {
                        Operator::LocalGet { .. }
                        | Operator::I32Const { .. }
                        | Operator::CallIndirect { .. }
                        | Operator::Call { .. }
                        | Operator::End => {}
                        _ => return Err(own()),
                    }
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn told(error: wasmparser::BinaryReaderError) -> String {
    format!("it cannot be read: {error}")
}
