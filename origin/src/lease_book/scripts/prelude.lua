-- What every script of the lease book begins with: where its parts lie, and whether it is the book that the caller means.
local HEAD, NAMES, LIVES, EDGES, SAID, LOG, JOURNAL = unpack(KEYS)

-- Lines that are kept for those who read along; whoever falls behind reads everything anew.
local KEPT_LINES = 4096
-- Lives of one name that were replaced, and those of them whose leases may still run.
local MOST_LIVES = 16
-- Followers in all.
local MOST_FOLLOWERS = 100000

local function number(text)
  return tonumber(text or '0') or 0
end

-- Lua writes large numbers with an exponent.
local function text(value)
  return string.format('%.0f', value)
end

local book = {}
local fields = redis.call('HGETALL', HEAD)
for i = 1, #fields, 2 do
  book[fields[i]] = fields[i + 1]
end

-- Where the journal stands that lies beside the book.
local journal_epoch, journal_seq = unpack(redis.call('HMGET', JOURNAL, 'epoch', 'seq'))

-- The process that runs this may be another one than the caller spoke to last, and have lost what that one had.
local server = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)') or 'unknown'

-- Returns the run that the book is of, or '' where it is of no run of this process, or parts of it are gone.
local function present_run()
  local run = book.run or ''
  local is_here = string.sub(run, 1, #server + 1) == server .. '.'
  local is_whole = redis.call('ZCARD', EDGES) == number(book.edges)
    and redis.call('HLEN', NAMES) == number(book.names)
    and redis.call('HLEN', LIVES) == number(book.lives)
  return is_here and is_whole and run or ''
end

-- Returns the answer to a caller that means another book.
local function other(run, epoch)
  local present = present_run()
  if present == '' or present ~= run then
    return { 'run', present }
  end
  if epoch and epoch ~= book.epoch then
    return { 'epoch', book.epoch }
  end
end

local function split(list)
  local found = {}
  for life in string.gmatch(list, '%S+') do
    found[#found + 1] = life
  end
  return found
end

local function read_name(who)
  local stored = redis.call('HGET', NAMES, who)
  if not stored then
    return nil
  end
  local life, drained, former, replaced = string.match(stored, '^(.-)\n(.-)\n(.-)\n(.*)$')
  return { life = life, drained = drained == '1', former = split(former), replaced = split(replaced) }
end

local function write_name(who, name)
  local drained = name.drained and '1' or '0'
  local parts = { name.life, drained, table.concat(name.former, ' '), table.concat(name.replaced, ' ') }
  redis.call('HSET', NAMES, who, table.concat(parts, '\n'))
end

local function read_life(key)
  local stored = redis.call('HGET', LIVES, key)
  if not stored then
    return nil
  end
  local grant, lease, applied = string.match(stored, '^(%d+) (%d+) (%d+)$')
  return { grant = number(grant), lease = number(lease), applied = number(applied) }
end

local function write_life(key, life)
  redis.call('HSET', LIVES, key, text(life.grant) .. ' ' .. text(life.lease) .. ' ' .. text(life.applied))
end

-- Returns the number of a new grant. How long the longest lease is that may run is raised in the same step.
local function grant(lease)
  book.grants = number(book.grants) + 1
  if lease >= number(book.longest) then
    book.longest, book.longest_at, book.next_longest = lease, book.grants, 0
  else
    book.next_longest = math.max(number(book.next_longest), lease)
  end
  return book.grants
end

local function contains(list, wanted)
  for _, found in ipairs(list) do
    if found == wanted then
      return true
    end
  end
  return false
end

local function remove(list, unwanted)
  for at, found in ipairs(list) do
    if found == unwanted then
      table.remove(list, at)
      return
    end
  end
end

-- Counts no lease any more, and knows of each follower its present life alone.
local function forget_leases(keeps_applied)
  local lives = {}
  for _, who in ipairs(redis.call('HKEYS', NAMES)) do
    local name = read_name(who)
    local key = who .. '/' .. name.life
    local life = read_life(key)
    lives[key] = keeps_applied and life and life.applied or 0
    name.former = {}
    write_name(who, name)
  end
  redis.call('DEL', EDGES, LIVES)
  for key, applied in pairs(lives) do
    write_life(key, { grant = 0, lease = 0, applied = applied })
  end
end

-- Writes what stands at the head, and tells those who read along.
local function close(lines)
  if #lines > 0 then
    book.log = number(book.log) + 1
    redis.call('XADD', LOG, 'MAXLEN', '~', KEPT_LINES, text(book.log) .. '-0', 'r', book.run, 'l', cjson.encode(lines))
  end
  local written = { 'run', book.run, 'epoch', book.epoch }
  for _, field in ipairs({ 'complete', 'floor', 'longest', 'longest_at', 'next_longest', 'grants', 'log' }) do
    written[#written + 1] = field
    written[#written + 1] = text(number(book[field]))
  end
  local counted = { 'edges', redis.call('ZCARD', EDGES), 'names', redis.call('HLEN', NAMES), 'lives', redis.call('HLEN', LIVES) }
  for _, part in ipairs(counted) do
    written[#written + 1] = part
  end
  redis.call('HSET', HEAD, unpack(written))
end
