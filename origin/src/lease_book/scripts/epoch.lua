-- Goes over to the epoch that the journal is in: of it nobody has applied anything. Leases of the one before may run; each origin
-- waits for their end by its own clock, from when it sees this.
-- ARGV: run, epoch, the journal's head as the caller knows it.
local mismatch = other(ARGV[1])
if mismatch then
  return mismatch
end
if book.epoch == ARGV[2] then
  return { 'done', book.epoch }
end
-- A caller that is behind must not turn the book back.
if journal_epoch ~= ARGV[2] then
  return { 'epoch', book.epoch }
end
forget_leases(false)
book.epoch = ARGV[2]
book.complete = 0
book.floor = math.max(number(ARGV[3]), number(journal_seq))
close({ { 'anew' } })
return { 'done', book.epoch }
