-- An origin that runs has seen another run begin: it says how far the journal had come, and how long leases were, so that
-- nobody is given a lease below what it may have made complete. ARGV: run, epoch, seq, the longest lease that it knows of.
local mismatch = other(ARGV[1], ARGV[2])
if mismatch then
  return mismatch
end
book.floor = math.max(number(book.floor), number(ARGV[3]))
if number(ARGV[4]) > number(book.longest) then
  book.longest, book.longest_at, book.next_longest = number(ARGV[4]), number(book.grants), 0
end
close({ { 'longest', text(number(book.longest)) } })
return { 'done', text(number(book.floor)) }
