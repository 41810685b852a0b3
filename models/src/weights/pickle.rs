//! The pickles in which PyTorch saves state dicts, read as data.
//!
//! A pickle is a program for a stack machine that may call any function of Python. Here it builds tensors (places in a file), numbers,
//! texts, tuples, lists and dictionaries, and calls nothing: of names it knows those that stand in state dicts, and any other is refused.
//! Opcodes: Python's Lib/pickletools.py; what `torch.save` writes of tensors: torch/_utils.py and torch/serialization.py.

use std::collections::HashMap;

use safetensors::tensor::Dtype;

/// Why a pickle is not read, in words that follow `it`.
pub(super) type Refusal = String;
type Outcome<T> = Result<T, Refusal>;

/// A value that a pickle builds: its place among [`Pickle::objects`]. A dictionary is filled after others refer to it.
type Id = usize;

/// Bytes of a file that tensors share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Storage {
    /// What the file calls it.
    pub(super) key: String,
    pub(super) dtype: Dtype,
    /// Elements.
    pub(super) length: usize,
}

/// A tensor that a pickle tells of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TensorRecord {
    pub(super) storage: Storage,
    /// Its first element in the storage.
    pub(super) offset: usize,
    pub(super) shape: Vec<usize>,
    /// Elements from one index to the next of each dimension; `None` where it lies row by row.
    pub(super) strides: Option<Vec<usize>>,
}

#[derive(Clone, Debug)]
enum Object {
    None,
    Bool(bool),
    Int(i64),
    Float,
    Text(String),
    Bytes,
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// A name that was looked up and not called.
    Name(Name),
    Storage(Storage),
    Tensor(TensorRecord),
}

/// Names that stand in state dicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    Size,
    Storage(Dtype),
    /// A storage whose type is that of the tensor.
    Untyped,
    /// A type of elements: `torch.float32`.
    Type,
}

impl Name {
    fn find(module: &str, name: &str) -> Option<Self> {
        match (module, name) {
            ("collections", "OrderedDict") => Some(Self::OrderedDict),
            ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Some(Self::RebuildTensor),
            ("torch._utils", "_rebuild_parameter") => Some(Self::RebuildParameter),
            ("torch", "Size") => Some(Self::Size),
            ("torch", name) if name.ends_with("Storage") => storage_type(name).map(Self::Storage),
            ("torch.storage" | "torch", "UntypedStorage") => Some(Self::Untyped),
            (
                "torch",
                "float32" | "float16" | "bfloat16" | "float64" | "int64" | "int32" | "int16" | "int8" | "uint8"
                | "bool",
            ) => Some(Self::Type),
            _ => None,
        }
    }
}

fn storage_type(name: &str) -> Option<Dtype> {
    Some(match name {
        "FloatStorage" => Dtype::F32,
        "HalfStorage" => Dtype::F16,
        "BFloat16Storage" => Dtype::BF16,
        "DoubleStorage" => Dtype::F64,
        "LongStorage" => Dtype::I64,
        "IntStorage" => Dtype::I32,
        "ShortStorage" => Dtype::I16,
        "CharStorage" => Dtype::I8,
        "ByteStorage" => Dtype::U8,
        "BoolStorage" => Dtype::BOOL,
        _ => return None,
    })
}

/// Bytes of a storage's element.
pub(super) fn size(dtype: Dtype) -> usize {
    match dtype {
        Dtype::F64 | Dtype::I64 | Dtype::U64 => 8,
        Dtype::F32 | Dtype::I32 | Dtype::U32 => 4,
        Dtype::F16 | Dtype::BF16 | Dtype::I16 | Dtype::U16 => 2,
        _ => 1,
    }
}

/// A pickle that was read to its end.
pub(super) struct Pickle {
    objects: Vec<Object>,
    top: Id,
    /// Bytes that it takes.
    pub(super) length: usize,
}

impl Pickle {
    /// Reads one pickle at the beginning of these bytes.
    ///
    /// # Errors
    /// Where it is cut off, or holds what stands in no state dict.
    pub(super) fn read(bytes: &[u8]) -> Outcome<Self> {
        let mut machine =
            Machine { bytes, at: 0, objects: Vec::new(), stack: Vec::new(), marks: Vec::new(), memo: HashMap::new() };
        let top = machine.run()?;
        Ok(Self { objects: machine.objects, top, length: machine.at })
    }

    /// The number that it is.
    pub(super) fn number(&self) -> Option<i64> {
        match self.objects[self.top] {
            Object::Int(number) => Some(number),
            _ => None,
        }
    }

    /// The texts of the list that it is.
    pub(super) fn texts(&self) -> Option<Vec<&str>> {
        let Object::List(items) = &self.objects[self.top] else { return None };
        items.iter().map(|&item| self.text(item)).collect()
    }

    /// An entry of the dictionary that it is: a truth value.
    pub(super) fn truth(&self, key: &str) -> Option<bool> {
        match self.objects[self.entry(self.top, key)?] {
            Object::Bool(truth) => Some(truth),
            _ => None,
        }
    }

    /// All storages that it tells of, also of tensors that are in no state dict.
    pub(super) fn storages(&self) -> impl Iterator<Item = &Storage> {
        self.objects.iter().filter_map(|object| match object {
            Object::Storage(storage) => Some(storage),
            _ => None,
        })
    }

    fn text(&self, id: Id) -> Option<&str> {
        match &self.objects[id] {
            Object::Text(text) => Some(text),
            _ => None,
        }
    }

    fn entry(&self, dict: Id, key: &str) -> Option<Id> {
        let Object::Dict(entries) = &self.objects[dict] else { return None };
        entries.iter().rev().find(|(name, _)| self.text(*name) == Some(key)).map(|(_, value)| *value)
    }

    /// The tensors of the state dict that it is, or that stands in it under the name that training scripts give it. `module.` before
    /// all names, which `DataParallel` writes, is left out.
    ///
    /// # Errors
    /// Where there is none.
    pub(super) fn state_dict(&self) -> Outcome<Vec<(String, TensorRecord)>> {
        const NAMES: [&str; 4] = ["state_dict", "model_state_dict", "model", "net"];
        let mut found = self.tensors(self.top);
        if found.is_empty() {
            found = NAMES
                .iter()
                .filter_map(|name| self.entry(self.top, name))
                .map(|dict| self.tensors(dict))
                .find(|found| !found.is_empty())
                .unwrap_or_default();
        }
        if found.is_empty() {
            return Err(format!("holds no state dict: no tensors by name, and none under {}", NAMES.join(", ")));
        }
        if found.iter().all(|(name, _)| name.starts_with("module.")) {
            found.iter_mut().for_each(|(name, _)| *name = name["module.".len()..].to_owned());
        }
        Ok(found)
    }

    fn tensors(&self, dict: Id) -> Vec<(String, TensorRecord)> {
        let Object::Dict(entries) = &self.objects[dict] else { return Vec::new() };
        let tensor = |&(name, value): &(Id, Id)| match &self.objects[value] {
            Object::Tensor(tensor) => Some((self.text(name)?.to_owned(), tensor.clone())),
            _ => None,
        };
        entries.iter().filter_map(tensor).collect()
    }
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    objects: Vec<Object>,
    stack: Vec<Id>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
}

/// Opcodes, by their names in Python's pickletools.
mod opcode {
    pub(super) const MARK: u8 = b'(';
    pub(super) const STOP: u8 = b'.';
    pub(super) const POP: u8 = b'0';
    pub(super) const POP_MARK: u8 = b'1';
    pub(super) const DUP: u8 = b'2';
    pub(super) const BINFLOAT: u8 = b'G';
    pub(super) const BININT: u8 = b'J';
    pub(super) const BININT1: u8 = b'K';
    pub(super) const BININT2: u8 = b'M';
    pub(super) const NONE: u8 = b'N';
    pub(super) const BINPERSID: u8 = b'Q';
    pub(super) const REDUCE: u8 = b'R';
    pub(super) const BINSTRING: u8 = b'T';
    pub(super) const SHORT_BINSTRING: u8 = b'U';
    pub(super) const BINUNICODE: u8 = b'X';
    pub(super) const EMPTY_LIST: u8 = b']';
    pub(super) const APPEND: u8 = b'a';
    pub(super) const BUILD: u8 = b'b';
    pub(super) const GLOBAL: u8 = b'c';
    pub(super) const APPENDS: u8 = b'e';
    pub(super) const BINGET: u8 = b'h';
    pub(super) const LONG_BINGET: u8 = b'j';
    pub(super) const BINPUT: u8 = b'q';
    pub(super) const LONG_BINPUT: u8 = b'r';
    pub(super) const SETITEM: u8 = b's';
    pub(super) const TUPLE: u8 = b't';
    pub(super) const EMPTY_TUPLE: u8 = b')';
    pub(super) const SETITEMS: u8 = b'u';
    pub(super) const EMPTY_DICT: u8 = b'}';
    pub(super) const BINBYTES: u8 = b'B';
    pub(super) const SHORT_BINBYTES: u8 = b'C';
    pub(super) const PROTO: u8 = 0x80;
    pub(super) const TUPLE1: u8 = 0x85;
    pub(super) const TUPLE2: u8 = 0x86;
    pub(super) const TUPLE3: u8 = 0x87;
    pub(super) const NEWTRUE: u8 = 0x88;
    pub(super) const NEWFALSE: u8 = 0x89;
    pub(super) const LONG1: u8 = 0x8a;
    pub(super) const SHORT_BINUNICODE: u8 = 0x8c;
    pub(super) const BINUNICODE8: u8 = 0x8d;
    pub(super) const STACK_GLOBAL: u8 = 0x93;
    pub(super) const MEMOIZE: u8 = 0x94;
    pub(super) const FRAME: u8 = 0x95;
}

impl Machine<'_> {
    fn run(&mut self) -> Outcome<Id> {
        loop {
            if let Some(top) = self.step()? {
                return Ok(top);
            }
        }
    }

    /// One opcode; what is on top where it was the last.
    fn step(&mut self) -> Outcome<Option<Id>> {
        let begins = self.at;
        match self.byte()? {
            opcode::PROTO => drop(self.take(1)?),
            opcode::FRAME => drop(self.take(8)?),
            opcode::STOP => return self.pop().map(Some),
            opcode::MARK => self.marks.push(self.stack.len()),
            opcode::POP => drop(self.pop()?),
            opcode::POP_MARK => drop(self.since_mark()?),
            opcode::DUP => {
                let top = self.top()?;
                self.stack.push(top);
            }
            opcode::NONE => self.push(Object::None),
            opcode::NEWTRUE => self.push(Object::Bool(true)),
            opcode::NEWFALSE => self.push(Object::Bool(false)),
            opcode::BININT => {
                let number = i32::from_le_bytes(self.array()?);
                self.push(Object::Int(number.into()));
            }
            opcode::BININT1 => {
                let number = self.byte()?;
                self.push(Object::Int(number.into()));
            }
            opcode::BININT2 => {
                let number = u16::from_le_bytes(self.array()?);
                self.push(Object::Int(number.into()));
            }
            opcode::LONG1 => self.long()?,
            opcode::BINFLOAT => {
                self.take(8)?;
                self.push(Object::Float);
            }
            opcode::BINUNICODE => self.text(4)?,
            opcode::SHORT_BINUNICODE => self.text(1)?,
            opcode::BINUNICODE8 => self.text(8)?,
            // Python 2's strings.
            opcode::BINSTRING => self.text(4)?,
            opcode::SHORT_BINSTRING => self.text(1)?,
            opcode::BINBYTES => self.skip_bytes(4)?,
            opcode::SHORT_BINBYTES => self.skip_bytes(1)?,
            opcode::EMPTY_TUPLE => self.push(Object::Tuple(Vec::new())),
            opcode::TUPLE1 => self.tuple(1)?,
            opcode::TUPLE2 => self.tuple(2)?,
            opcode::TUPLE3 => self.tuple(3)?,
            opcode::TUPLE => {
                let items = self.since_mark()?;
                self.push(Object::Tuple(items));
            }
            opcode::EMPTY_LIST => self.push(Object::List(Vec::new())),
            opcode::EMPTY_DICT => self.push(Object::Dict(Vec::new())),
            opcode::APPEND => {
                let item = self.pop()?;
                self.list()?.push(item);
            }
            opcode::APPENDS => {
                let items = self.since_mark()?;
                self.list()?.extend(items);
            }
            opcode::SETITEM => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.dict()?.push((key, value));
            }
            opcode::SETITEMS => {
                let items = self.since_mark()?;
                let pairs = items.as_chunks::<2>().0.iter().map(|&[key, value]| (key, value));
                self.dict()?.extend(pairs);
            }
            opcode::BINPUT => {
                let place = self.byte()?;
                self.remember(place.into())?;
            }
            opcode::LONG_BINPUT => {
                let place = u32::from_le_bytes(self.array()?);
                self.remember(place)?;
            }
            opcode::MEMOIZE => self.remember(self.memo.len() as u32)?,
            opcode::BINGET => {
                let place = self.byte()?;
                self.recall(place.into())?;
            }
            opcode::LONG_BINGET => {
                let place = u32::from_le_bytes(self.array()?);
                self.recall(place)?;
            }
            opcode::GLOBAL => {
                let (module, name) = (self.line()?, self.line()?);
                self.name(&module, &name)?;
            }
            opcode::STACK_GLOBAL => {
                let (name, module) = (self.pop_text()?, self.pop_text()?);
                self.name(&module, &name)?;
            }
            opcode::BINPERSID => self.storage()?,
            opcode::REDUCE => self.call()?,
            // What a state dict is given besides: `_metadata`, versions of its layers.
            opcode::BUILD => {
                self.pop()?;
                self.dict()?;
            }
            other => {
                return Err(format!("holds the opcode {other:#04x} at byte {begins}, which stands in no state dict"));
            }
        }
        Ok(None)
    }

    fn take(&mut self, length: usize) -> Outcome<&[u8]> {
        let end = self.at.checked_add(length).filter(|&end| end <= self.bytes.len());
        let end = end.ok_or("ends within a pickle")?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn byte(&mut self) -> Outcome<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn array<const N: usize>(&mut self) -> Outcome<[u8; N]> {
        self.take(N)?.try_into().map_err(|_| "ends within a pickle".into())
    }

    /// A length of so many bytes.
    fn length(&mut self, bytes: usize) -> Outcome<usize> {
        let mut wide = [0; 8];
        wide[..bytes].copy_from_slice(self.take(bytes)?);
        usize::try_from(u64::from_le_bytes(wide)).map_err(|_| "ends within a pickle".into())
    }

    fn line(&mut self) -> Outcome<String> {
        let rest = &self.bytes[self.at..];
        let end = rest.iter().position(|&byte| byte == b'\n').ok_or("ends within a pickle")?;
        let line = String::from_utf8_lossy(&rest[..end]).into_owned();
        self.at += end + 1;
        Ok(line)
    }

    fn push(&mut self, object: Object) {
        self.objects.push(object);
        self.stack.push(self.objects.len() - 1);
    }

    fn top(&self) -> Outcome<Id> {
        let above = self.marks.last().copied().unwrap_or(0);
        self.stack
            .get(above..)
            .and_then(<[Id]>::last)
            .copied()
            .ok_or_else(|| "holds a pickle that takes what is not there".into())
    }

    fn pop(&mut self) -> Outcome<Id> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn pop_text(&mut self) -> Outcome<String> {
        let top = self.pop()?;
        match &self.objects[top] {
            Object::Text(text) => Ok(text.clone()),
            _ => Err("holds a pickle that names something by no text".into()),
        }
    }

    fn since_mark(&mut self) -> Outcome<Vec<Id>> {
        let mark = self.marks.pop().filter(|&mark| mark <= self.stack.len());
        Ok(self.stack.split_off(mark.ok_or("holds a pickle that takes what is not there")?))
    }

    fn tuple(&mut self, length: usize) -> Outcome<()> {
        let mut items = (0..length).map(|_| self.pop()).collect::<Outcome<Vec<Id>>>()?;
        items.reverse();
        self.push(Object::Tuple(items));
        Ok(())
    }

    fn list(&mut self) -> Outcome<&mut Vec<Id>> {
        let top = self.top()?;
        match &mut self.objects[top] {
            Object::List(items) => Ok(items),
            _ => Err("holds a pickle that appends to what is no list".into()),
        }
    }

    fn dict(&mut self) -> Outcome<&mut Vec<(Id, Id)>> {
        let top = self.top()?;
        match &mut self.objects[top] {
            Object::Dict(entries) => Ok(entries),
            _ => Err("holds a pickle that sets entries, or a state, of what is no dictionary".into()),
        }
    }

    fn remember(&mut self, place: u32) -> Outcome<()> {
        let top = self.top()?;
        self.memo.insert(place, top);
        Ok(())
    }

    fn recall(&mut self, place: u32) -> Outcome<()> {
        let id = *self.memo.get(&place).ok_or("holds a pickle that takes what is not there")?;
        self.stack.push(id);
        Ok(())
    }

    /// A whole number of any length, two's complement.
    fn long(&mut self) -> Outcome<()> {
        let length = self.length(1)?;
        let bytes = self.take(length)?;
        // Longer ones are the legacy format's magic number, which is looked at as bytes, and nothing else of interest.
        let negative = bytes.last().is_some_and(|&byte| byte >= 0x80);
        let mut wide = [if negative { 0xff } else { 0 }; 8];
        let kept = bytes.len().min(8);
        wide[..kept].copy_from_slice(&bytes[..kept]);
        let object = if bytes.len() > 8 { Object::Float } else { Object::Int(i64::from_le_bytes(wide)) };
        self.push(object);
        Ok(())
    }

    fn text(&mut self, length: usize) -> Outcome<()> {
        let length = self.length(length)?;
        let text = String::from_utf8_lossy(self.take(length)?).into_owned();
        self.push(Object::Text(text));
        Ok(())
    }

    fn skip_bytes(&mut self, length: usize) -> Outcome<()> {
        let length = self.length(length)?;
        self.take(length)?;
        self.push(Object::Bytes);
        Ok(())
    }

    fn name(&mut self, module: &str, name: &str) -> Outcome<()> {
        let found = Name::find(module, name).ok_or_else(|| {
            format!("is a pickle that calls {module}.{name}, which stands in no state dict and is never run here; save model.state_dict() alone, by torch.save or as safetensors")
        })?;
        self.push(Object::Name(found));
        Ok(())
    }

    /// `('storage', type, key, location, elements)`, and of the legacy format a view that is none.
    fn storage(&mut self) -> Outcome<()> {
        let id = self.pop()?;
        let Object::Tuple(items) = &self.objects[id] else { return Err("refers to what is no storage".into()) };
        let mut parts = items.iter().map(|&item| &self.objects[item]);
        let storage = match (parts.next(), parts.next(), parts.next(), parts.next(), parts.next()) {
            (
                Some(Object::Text(what)),
                Some(Object::Name(of)),
                Some(Object::Text(key)),
                Some(_),
                Some(Object::Int(length)),
            ) if what == "storage" => {
                let dtype = match of {
                    Name::Storage(dtype) => *dtype,
                    _ => return Err("has a storage without a type of elements".into()),
                };
                let length = usize::try_from(*length).map_err(|_| "has a storage of a negative length")?;
                Storage { key: key.clone(), dtype, length }
            }
            _ => return Err("refers to what is no storage".into()),
        };
        if let Some(view) = parts.next()
            && !matches!(view, Object::None)
        {
            return Err(
                "has a storage that is a view of another, as PyTorch wrote them before 0.4; save it again".into()
            );
        }
        self.push(Object::Storage(storage));
        Ok(())
    }

    /// The few calls of a state dict, done here.
    fn call(&mut self) -> Outcome<()> {
        let (arguments, function) = (self.pop()?, self.pop()?);
        let Object::Tuple(arguments) = &self.objects[arguments] else {
            return Err("calls something without arguments".into());
        };
        let arguments = arguments.clone();
        let made = match self.objects[function] {
            Object::Name(Name::OrderedDict) if arguments.is_empty() => Object::Dict(Vec::new()),
            Object::Name(Name::Size) if arguments.len() == 1 => self.objects[arguments[0]].clone(),
            Object::Name(Name::RebuildTensor) => Object::Tensor(self.tensor(&arguments)?),
            Object::Name(Name::RebuildParameter) => match arguments.first().map(|&data| &self.objects[data]) {
                Some(Object::Tensor(tensor)) => Object::Tensor(tensor.clone()),
                _ => return Err("has a parameter that is no tensor".into()),
            },
            _ => return Err("calls what stands in no state dict".into()),
        };
        self.push(made);
        Ok(())
    }

    /// `(storage, first element, shape, strides, ...)`.
    fn tensor(&self, arguments: &[Id]) -> Outcome<TensorRecord> {
        let objects: Vec<&Object> = arguments.iter().map(|&id| &self.objects[id]).collect();
        let [Object::Storage(storage), Object::Int(offset), Object::Tuple(shape), Object::Tuple(strides), ..] =
            objects[..]
        else {
            return Err("has a tensor that is described in another way than a dense one".into());
        };
        let numbers = |ids: &[Id]| {
            let number = |&id: &Id| match self.objects[id] {
                Object::Int(number) => usize::try_from(number).ok(),
                _ => None,
            };
            ids.iter().map(number).collect::<Option<Vec<usize>>>().ok_or("has a tensor whose shape is no numbers")
        };
        let (shape, strides) = (numbers(shape)?, numbers(strides)?);
        let offset = usize::try_from(*offset).map_err(|_| "has a tensor that begins before its storage")?;
        if shape.len() != strides.len() {
            return Err(format!("has a tensor of shape {shape:?} with strides {strides:?}"));
        }
        let large = "has a tensor of more elements than any file";
        // Elements, and places from the first one to the last.
        let (mut elements, mut span, mut contiguous) = (1usize, 0usize, true);
        for (&extent, &stride) in shape.iter().zip(&strides).rev() {
            contiguous &= extent <= 1 || stride == elements;
            elements = elements.checked_mul(extent).ok_or(large)?;
            span = extent.saturating_sub(1).checked_mul(stride).and_then(|more| span.checked_add(more)).ok_or(large)?;
        }
        let end =
            if elements == 0 { Some(offset) } else { offset.checked_add(span).and_then(|last| last.checked_add(1)) };
        // What repeats its elements, as torch's expand makes it, would take more memory than the file.
        if end.is_none_or(|end| end > storage.length) || elements > storage.length {
            return Err(format!(
                "has a tensor of shape {shape:?} that reaches past its storage of {} elements",
                storage.length
            ));
        }
        let strides = (!contiguous && elements > 0).then_some(strides);
        Ok(TensorRecord { storage: storage.clone(), offset, shape, strides })
    }
}
