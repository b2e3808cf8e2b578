"""The policies that come with edgekit, as JSON so that a device reads them without a YAML library.

They are starting points. Which drift of a map is harmless depends on what the maps are used for; whoever knows that
writes a policy. The numbers were chosen so:

- A sample counts as kept from cosine 0.90 (strict 0.95, lenient 0.80). Cosine alone flatters: two non-negative maps
  of independent uniform noise reach 0.75. So ranks (Spearman) and the overlap of the strongest 20 % of the cells stand
  beside it. For that overlap chance is 0.11; 0.60 means that three quarters of the strongest cells are the same ones.
- INT8 done well on last-stage Grad-CAM keeps a mean cosine above 0.99, Spearman above 0.99, overlap above 0.9 and 97 %
  of the answers: it passes "strict", given the 350 samples that 97 % need to show "at least 95 %". Half of the channels
  pruned and fine-tuned without a matching term (cosine 0.88, one sample in a hundred below 0.5, 80 % of the answers)
  fails "default".
- Shares are asked for with 95 % confidence. That sets how many samples are needed at the very least: 59 faultless ones
  for "at least 95 %", 99 for "at least 97 %", 29 for "at least 90 %". `min_samples` guards the clauses without a
  confidence bound in the same order of size.
- Up to 5 % of the samples may have two zero maps: more, and the set or the tap explains nothing.
- Accuracy may drop by two points. The clause is not required, since a golden set need not have labels; the report says
  when it was not measured. "strict" does require it: who asks for that much has labels.
- "strict" also asks about the engine's map of its own answer, which is what a deployed engine shows.
"""
