-- What all scripts of the journal share. KEYS: head, events, snapshot, durable. Numbers stay the text that they came as:
-- a Lua number is a double.

local actual = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)') or ''

-- Two ids, since either alone may lie: the head may have been written under a process that is gone, and a process that was
-- demoted and promoted again has its id still.
local function other_run(run)
  return actual ~= run or redis.call('HGET', KEYS[1], 'run') ~= run
end

local function report(word, events, state)
  local said = {word, actual}
  local head = redis.call('HMGET', KEYS[1], 'run', 'epoch', 'seq', 'chain', 'durable', 'turn', 'begun')
  for i = 1, 7 do
    said[#said + 1] = head[i] or ''
  end
  said[#said + 1] = redis.call('HGET', KEYS[3], 'seq') or ''
  said[#said + 1] = events or {}
  said[#said + 1] = state or ''
  return said
end

-- Entries from an id on, up to 512 or 8 MiB: an entry may have a megabyte, so they are fetched by few.
local function page(from, most)
  local found, bytes = {}, 0
  while true do
    local entries = redis.call('XRANGE', KEYS[2], from, '+', 'COUNT', 64)
    for _, entry in ipairs(entries) do
      local fields = entry[2]
      found[#found + 1] = {entry[1], fields[2], fields[4], fields[6]}
      bytes = bytes + #fields[6]
      if #found >= most or bytes >= 8388608 then
        return found
      end
    end
    if #entries < 64 then
      return found
    end
    from = '(' .. entries[64][1]
  end
end

-- Where a position stands beside what is here.
local function place(epoch, seq, chain)
  local head = redis.call('HMGET', KEYS[1], 'epoch', 'seq', 'chain')
  if not head[1] then
    return 'empty'
  end
  if head[1] ~= epoch then
    return 'epoch'
  end
  if tonumber(seq) > tonumber(head[2]) then
    return 'behind'
  end
  if seq == head[2] then
    return head[3] == chain and 'here' or 'other'
  end
  local first = redis.call('XRANGE', KEYS[2], seq .. '-0', '+', 'COUNT', 1)[1]
  if not first then
    return 'cut'
  end
  if first[1] == seq .. '-0' then
    return first[2][4] == chain and 'here' or 'other'
  end
  -- The entry itself was cut. Whether the next one follows from it, its chain tells whoever asks.
  if first[1] == string.format('%.0f-0', tonumber(seq) + 1) then
    return 'here'
  end
  return 'cut'
end

