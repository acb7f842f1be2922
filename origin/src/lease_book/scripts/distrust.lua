-- Begins another run: grants may have been lost with the process that made them, or the whole book. Who follows stays known, where
-- that is left. Each origin waits for the end of all leases that there may be, from when it sees this.
-- ARGV: the run that the caller knows, what the new one is called, epoch, the journal's head as the caller knows it, the longest
-- lease that it knows of, and the longest that there may be.
local present = present_run()
if present ~= '' and present ~= ARGV[1] then
  return { 'run', present }
end
-- A journal that was just founded has had no followers.
local is_lost = not book.run and number(journal_seq) > 0
if not book.run then
  redis.call('DEL', LOG)
end
forget_leases(true)
book.run = server .. '.' .. ARGV[2]
book.epoch = book.epoch or ARGV[3]
book.floor = math.max(number(book.floor), number(ARGV[4]), number(journal_seq))
book.longest = math.max(number(book.longest), number(ARGV[5]), is_lost and number(ARGV[6]) or 0)
book.longest_at, book.next_longest = number(book.grants), 0
close({ { 'anew' } })
local time = redis.call('TIME')
redis.call('HSET', HEAD, 'since', text(time[1] * 1000 + math.floor(time[2] / 1000)))
return { 'done', book.run }
