//! The program and the libraries it has in memory: how their frames are unwound, and what their functions are called.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

use framehop::{ExplicitModuleSectionInfo, Module, Unwinder as _, UnwinderNative};
use object::read::ReadCache;
use object::{Object as _, ObjectSection as _, ObjectSegment as _, ObjectSymbol as _, SymbolKind};

/// The unwinder for this processor.
pub type Unwinder = UnwinderNative<Vec<u8>, framehop::MayAllocateDuringUnwind>;

/// What is in memory.
#[derive(Default)]
pub struct Modules {
    files: Vec<Loaded>,
    unwinder: Unwinder,
}

/// A file of which there is code in memory.
#[derive(Debug, PartialEq, Eq)]
struct Loaded {
    path: String,
    /// Where it is.
    range: Range<u64>,
    /// Where its code is, and from where in the file.
    code: Range<u64>,
    offset: u64,
}

impl Modules {
    /// Those that are there now. One whose tables cannot be read is unwound by frame pointers, if it has any.
    pub fn of_this_process() -> Self {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
        let files = loaded(&maps);
        let mut unwinder = Unwinder::default();
        for file in &files {
            if let Some(module) = file.module() {
                unwinder.add_module(module);
            }
        }
        Self { files, unwinder }
    }

    /// What unwinds stacks through them.
    pub fn unwinder(&self) -> &Unwinder {
        &self.unwinder
    }

    /// The names of the functions in which these addresses lie.
    pub fn names(&self, addresses: BTreeSet<u64>) -> HashMap<u64, Arc<str>> {
        let mut names: HashMap<u64, Arc<str>> = HashMap::new();
        let mut same: HashMap<String, Arc<str>> = HashMap::new();
        let mut name = |text: String| {
            let name = same
                .entry(text)
                .or_insert_with_key(|text| text.as_str().into());
            Arc::clone(name)
        };
        for file in &self.files {
            let of_it: Vec<u64> = addresses.range(file.range.clone()).copied().collect();
            if of_it.is_empty() {
                continue;
            }
            let unknown = format!("[{}]", file.name());
            let mut found = file.functions(&of_it).unwrap_or_default();
            for address in of_it {
                let function = found.remove(&address).unwrap_or_else(|| unknown.clone());
                names.insert(address, name(function));
            }
        }
        for address in addresses {
            let unknown = || name("[unknown]".to_owned());
            names.entry(address).or_insert_with(unknown);
        }
        names
    }
}

impl Loaded {
    /// Its last part.
    fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }

    /// The file, as it was when it was started, even if there is another one in its place now.
    fn open(&self) -> Option<ReadCache<File>> {
        let own = std::fs::read_link("/proc/self/exe")
            .is_ok_and(|own| own.as_os_str() == self.path.as_str());
        let path = if own { "/proc/self/exe" } else { &self.path };
        File::open(path).ok().map(ReadCache::new)
    }

    /// What has to be added to an address in the file.
    fn bias<'data>(&self, file: &object::File<'data, &'data ReadCache<File>>) -> Option<u64> {
        file.segments().find_map(|segment| {
            let (from, length) = segment.file_range();
            // Mappings begin at a page.
            let holds = from & !0xfff <= self.offset && self.offset < from + length;
            let executable = segment.permissions().executable();
            let address = segment
                .address()
                .wrapping_sub(from)
                .wrapping_add(self.offset);
            (holds && executable).then(|| self.code.start.wrapping_sub(address))
        })
    }

    fn module(&self) -> Option<Module<Vec<u8>>> {
        let cache = self.open()?;
        let file = object::File::parse(&cache).ok()?;
        let section = |name: &str| {
            let section = file.section_by_name(name)?;
            let range = section.address()..section.address() + section.size();
            Some((range, section.data().ok()?.to_vec()))
        };
        let place = |name: &str| {
            let section = file.section_by_name(name)?;
            Some(section.address()..section.address() + section.size())
        };
        let (eh_frame_svma, eh_frame) = section(".eh_frame").unzip();
        let (eh_frame_hdr_svma, eh_frame_hdr) = section(".eh_frame_hdr").unzip();
        let sections = ExplicitModuleSectionInfo {
            base_svma: 0,
            text_svma: place(".text"),
            got_svma: place(".got"),
            eh_frame_svma,
            eh_frame,
            eh_frame_hdr_svma,
            eh_frame_hdr,
            ..ExplicitModuleSectionInfo::default()
        };
        let bias = self.bias(&file)?;
        Some(Module::new(
            self.path.clone(),
            self.range.clone(),
            bias,
            sections,
        ))
    }

    /// Names of the functions around these addresses.
    fn functions(&self, addresses: &[u64]) -> Option<HashMap<u64, String>> {
        let cache = self.open()?;
        let file = object::File::parse(&cache).ok()?;
        let bias = self.bias(&file)?;
        let all = file.symbols().map(|symbol| (symbol, false));
        let exported = file.dynamic_symbols().map(|symbol| (symbol, true));
        let mut symbols: Vec<_> = all
            .chain(exported)
            .filter(|(symbol, _)| symbol.kind() == SymbolKind::Text && symbol.is_definition())
            .map(|(symbol, dynamic)| (symbol.address(), symbol.size(), dynamic, symbol.index()))
            .collect();
        symbols.sort_by_key(|(address, size, dynamic, _)| (*address, *size, *dynamic));
        let mut names = HashMap::new();
        for address in addresses {
            let inside = address.wrapping_sub(bias);
            let after = symbols.partition_point(|(from, ..)| *from <= inside);
            let Some((from, size, dynamic, index)) = after.checked_sub(1).map(|at| &symbols[at])
            else {
                continue;
            };
            // Hand-written assembly often says no size.
            if *size > 0 && inside >= from + size {
                continue;
            }
            let table = match dynamic {
                true => file.dynamic_symbol_table(),
                false => file.symbol_table(),
            };
            use object::ObjectSymbolTable as _;
            let symbol = table.and_then(|table| table.symbol_by_index(*index).ok());
            let raw = symbol.and_then(|symbol| symbol.name().ok().map(demangled));
            if let Some(name) = raw.filter(|name| !name.is_empty()) {
                names.insert(*address, name);
            }
        }
        Some(names)
    }
}

/// The files of which `/proc/self/maps` shows code.
fn loaded(maps: &str) -> Vec<Loaded> {
    let mut ranges: BTreeMap<&str, Range<u64>> = BTreeMap::new();
    let mut code = Vec::new();
    for line in maps.lines() {
        let Some((range, flags, offset, path)) = mapping(line) else {
            continue;
        };
        let whole = ranges.entry(path).or_insert_with(|| range.clone());
        whole.start = whole.start.min(range.start);
        whole.end = whole.end.max(range.end);
        if flags.contains('x') {
            code.push((path, range, offset));
        }
    }
    let mut seen = BTreeSet::new();
    code.into_iter()
        .filter(|(path, ..)| seen.insert(*path))
        .filter_map(|(path, code, offset)| {
            Some(Loaded {
                path: path.trim_end_matches(" (deleted)").to_owned(),
                range: ranges.get(path)?.clone(),
                code,
                offset,
            })
        })
        .collect()
}

/// A line with a file: where, what may be done with it, from where in the file, and which.
fn mapping(line: &str) -> Option<(Range<u64>, &str, u64, &str)> {
    let path = &line[line.find('/')?..];
    let mut words = line.split_whitespace();
    let (from, until) = words.next()?.split_once('-')?;
    let hex = |text| u64::from_str_radix(text, 16).ok();
    let flags = words.next()?;
    let offset = hex(words.next()?)?;
    Some((hex(from)?..hex(until)?, flags, offset, path))
}

/// A function's name as its author wrote it, without its parameters.
fn demangled(raw: &str) -> String {
    if let Ok(name) = rustc_demangle::try_demangle(raw) {
        return format!("{name:#}");
    }
    let options = cpp_demangle::DemangleOptions::new()
        .no_params()
        .no_return_type();
    let name = cpp_demangle::Symbol::new(raw)
        .ok()
        .and_then(|symbol| symbol.demangle_with_options(&options).ok());
    name.unwrap_or_else(|| raw.to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_files_with_code_are_found_in_the_list_of_mappings() {
        let maps = "\
55d0c0000000-55d0c0010000 r--p 00000000 fe:00 1 /usr/bin/with space
55d0c0010000-55d0c0030000 r-xp 00010000 fe:00 1 /usr/bin/with space
55d0c0030000-55d0c0040000 rw-p 00030000 fe:00 1 /usr/bin/with space
7f0000000000-7f0000021000 rw-p 00000000 00:00 0
7f1000000000-7f1000001000 r--p 00000000 fe:00 2 /lib/data.bin
7ffd00000000-7ffd00001000 r-xp 00000000 00:00 0 [vdso]
";
        let expected = Loaded {
            path: "/usr/bin/with space".to_owned(),
            range: 0x55d0_c000_0000..0x55d0_c004_0000,
            code: 0x55d0_c001_0000..0x55d0_c003_0000,
            offset: 0x1_0000,
        };
        assert_eq!(loaded(maps), [expected]);
    }

    #[test]
    fn an_address_in_a_function_gets_its_name_and_one_nowhere_none() {
        let modules = Modules::of_this_process();
        let here = demangled as *const () as u64 + 1;
        let names = modules.names([here, 16].into());
        assert_eq!(&*names[&here], "duologue_profile::modules::demangled");
        assert_eq!(&*names[&16], "[unknown]");
    }

    #[test]
    fn names_of_cpp_and_c_are_shown_as_they_were_written() {
        assert_eq!(demangled("_ZN3ruy5AddOpIiEEvPKT_"), "ruy::AddOp<int>");
        assert_eq!(demangled("ggml_vec_dot_f16"), "ggml_vec_dot_f16");
    }
}
