-- Runs once in a fresh state and leaves it as scripts find it. What it returns is called by the engine.
--
-- Scripts share a state, so they must not change what others find. Tables that all of them see are read through empty
-- tables, whose metatable refuses changes; functions that change a table by hand are told which these are.
local native, libraries = ...

local type, next, pairs, rawget = type, next, pairs, rawget
local pcall, xpcall, loadstring, setmetatable, getmetatable = pcall, xpcall, loadstring, setmetatable, getmetatable
local collectgarbage, insert = collectgarbage, table.insert
local resume, concat, byte = coroutine.resume, table.concat, string.byte
local find, gsub = string.find, string.gsub
local select, error, unpack = select, error, unpack

-- From the empty tables to those that they show.
local shown_by = {}

local function read_only(shown)
  local empty = {}
  setmetatable(empty, {__index = shown, __newindex = native.refuse_change, __metatable = false})
  shown_by[empty] = shown
  native.mark_read_only(empty)
  return empty
end

local function copy(from, but)
  local to = {}
  for name, value in pairs(from) do to[name] = value end
  for name, value in pairs(but or {}) do to[name] = value end
  return to
end

-- An error of the engine is an object of its own. Those who catch it get a text, as from Redis' pcall.
local function caught(is_well, failure, ...)
  if is_well then return true, failure, ... end
  native.end_if_killed()
  return false, native.caught(failure)
end

local function resumed(is_well, failure, ...)
  if is_well then return true, failure, ... end
  return false, native.raised(failure)
end

-- No code of a script runs once it is killed, and above all none that handles errors: it would run within the hook,
-- which is not called meanwhile.
local function unless_killed(...)
  native.end_if_killed()
  return ...
end

-- Each value that the engine is given takes one of few places.
local function few(...)
  if select('#', ...) > native.values_max then error('too many results to unpack') end
  return ...
end

-- The matcher calls itself for each part of a pattern that is repeated: a long one takes more stack than there is. What
-- it returns goes through a function, as its errors do not bear its name after a tail call.
local guard = [[
  local NAME, type, check, all = ...
  return function(...)
    local _, pattern = ...
    if type(pattern) == 'string' and #pattern > MAX then check(pattern) end
    return all(NAME(...))
  end]]
guard = gsub(guard, 'MAX', native.pattern_bytes_max)
local function check(pattern)
  if find(pattern, '[*+?-]') then error('pattern too complex') end
end
local function all(...) return ... end
for name, run in pairs({find = find, gmatch = string.gmatch, gsub = gsub, match = string.match}) do
  string[name] = loadstring(gsub(guard, 'NAME', name), '=sandbox')(run, type, check, all)
end

local base = {
  _VERSION = _VERSION, assert = assert, error = error, gcinfo = gcinfo, ipairs = ipairs, rawequal = rawequal,
  select = select, tonumber = tonumber, tostring = tostring, type = type, unpack = function(...) return few(unpack(...)) end,
  setmetatable = native.setmetatable, rawset = native.rawset,
  collectgarbage = function(option, ...)
    if option == 'stop' or option == 'setpause' or option == 'setstepmul' then return 0 end
    return collectgarbage(option, ...)
  end,
  getmetatable = getmetatable,
  load = function(reader, name)
    local parts = {}
    while true do
      local part = reader()
      if part == nil or part == '' then break end
      parts[#parts + 1] = part
    end
    local text = concat(parts)
    if byte(text, 1) == 27 then return nil, 'attempt to load bytecode' end
    return loadstring(text, name or '=(load)')
  end,
  loadstring = function(text, name)
    if type(text) == 'string' and byte(text, 1) == 27 then return nil, 'attempt to load bytecode' end
    if name == nil then return loadstring(text) end
    return loadstring(text, name)
  end,
  next = function(target, ...)
    return next(shown_by[target] or target, ...)
  end,
  pairs = function(target)
    return pairs(shown_by[target] or target)
  end,
  pcall = function(run, ...)
    return caught(pcall(run, ...))
  end,
  rawget = function(target, name)
    return rawget(shown_by[target] or target, name)
  end,
  xpcall = function(run, handle)
    return unless_killed(xpcall(run, function(failure)
      if not native.is_killed() then return handle(native.raised(failure)) end
    end))
  end,
  bit = read_only(libraries.bit), cjson = read_only(libraries.cjson), cmsgpack = read_only(libraries.cmsgpack),
  struct = read_only(libraries.struct), string = read_only(string),
  coroutine = read_only(copy(coroutine, {
    resume = function(routine, ...) return resumed(resume(routine, ...)) end,
  })),
  math = read_only(copy(math, {random = native.random, randomseed = native.randomseed})),
  table = read_only(copy(table, {
    insert = function(target, ...)
      if shown_by[target] then native.refuse_change_of_list() end
      return insert(target, ...)
    end,
  })),
}

local refuse_missing = {__index = native.refuse_missing}
local of_scripts = setmetatable(copy(base, {redis = read_only(libraries.redis_of_scripts)}), refuse_missing)
local of_functions = setmetatable(copy(base, {redis = read_only(libraries.redis_of_functions)}), refuse_missing)
local of_libraries = setmetatable({
  redis = read_only(setmetatable(libraries.redis_of_libraries, refuse_missing)),
}, refuse_missing)

local globals_index = {__newindex = native.refuse_change, __metatable = false}
local globals = setmetatable({}, globals_index)
native.mark_read_only(globals)
of_scripts._G, of_functions._G = globals, globals

local function show(shown)
  globals_index.__index = shown
  shown_by[globals] = shown
end
show(of_scripts)

getmetatable('').__metatable = false

local function run_script(run, keys, arguments)
  show(of_scripts)
  of_scripts.KEYS, of_scripts.ARGV = keys, arguments
  return xpcall(run, native.failed)
end

local function run_function(run, keys, arguments)
  show(of_functions)
  return xpcall(function() return run(keys, arguments) end, native.failed)
end

local function run_library(run)
  show(of_libraries)
  return xpcall(run, native.failed)
end

return globals, run_script, run_function, run_library
